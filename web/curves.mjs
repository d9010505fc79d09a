/**
 * The lines of the picture: which sides of two cards an edge joins, where on them it ends, and the way between. Pure
 * geometry; points are [x, y], places are the middles of cards by name, a card is {width, height}.
 */

const NORMAL = { right: [1, 0], left: [-1, 0], bottom: [0, 1], top: [0, -1] };
const PORT_STEP = 11;
const CLEAR = 14;

/**
 * Curves of all edges.
 *
 * @param edges [{source, target}]
 * @param places Map name -> [x, y]
 * @param routes Map "source\ntarget" -> points to pass on the way
 * @param flow "right" or "down": the sides that edges rather join
 * @returns in the order of the edges, lists of points: the start, then three for each cubic Bezier curve
 */
export function curves(edges, places, card, routes, flow) {
    const ends = edges.map(({ source, target }) => {
        const points = routes.get(`${source}\n${target}`) ?? [];
        const [from, to] = [places.get(source), places.get(target)];
        const straight = sides(from, to, card, flow);
        if (!points.length) return { source, target, points, sides: straight, toward: [to, from] };
        return { source, target, points, sides: flowing[flow], toward: [points[0], points.at(-1)] };
    });
    const ports = portsOf(ends, places, card);
    return ends.map(({ points, sides: [leave, enter] }, i) => {
        const stops = [ports[i][0], ...points, ports[i][1]];
        const along = NORMAL[leave];
        const curve = [stops[0]];
        for (let j = 1; j < stops.length; j++) {
            const out = along;
            const into = j === stops.length - 1 ? NORMAL[enter] : [-along[0], -along[1]];
            curve.push(...bend(stops[j - 1], out, stops[j], into));
        }
        return curve;
    });
}

const flowing = { right: ["right", "left"], down: ["bottom", "top"] };

/** The sides that face each other; along the flow where there is room for it. */
function sides([x0, y0], [x1, y1], card, flow) {
    const across = Math.abs(x1 - x0) - card.width;
    const down = Math.abs(y1 - y0) - card.height;
    const horizontal = flow === "right" ? across > CLEAR || across >= down : down <= CLEAR && across > down;
    if (horizontal) return x1 >= x0 ? ["right", "left"] : ["left", "right"];
    return y1 >= y0 ? ["bottom", "top"] : ["top", "bottom"];
}

/** Ends that share a side of a card lie beside each other, in the order of where they lead. */
function portsOf(ends, places, card) {
    const groups = new Map();
    ends.forEach(({ source, target, sides: both, toward }, i) => {
        [source, target].forEach((name, end) => {
            const at = `${both[end]}\n${name}`;
            if (!groups.has(at)) groups.set(at, []);
            groups.get(at).push({ i, end, name, side: both[end], toward: toward[end] });
        });
    });
    const ports = ends.map(() => []);
    for (const group of groups.values()) {
        const [dx, dy] = NORMAL[group[0].side];
        const room = dx ? card.height * 0.62 : card.width * 0.7;
        const step = Math.min(PORT_STEP, room / Math.max(1, group.length - 1));
        const [x, y] = places.get(group[0].name);
        group.sort((a, b) => (dx ? a.toward[1] - b.toward[1] : a.toward[0] - b.toward[0]) || a.i - b.i);
        group.forEach(({ i, end }, k) => {
            const shift = (k - (group.length - 1) / 2) * step;
            const middle = [x + (dx * card.width) / 2, y + (dy * card.height) / 2];
            ports[i][end] = dx ? [middle[0], middle[1] + shift] : [middle[0] + shift, middle[1]];
        });
    }
    return ports;
}

/** Two control points and the end of a curve that leaves in one direction and arrives from another. */
function bend(from, out, to, into) {
    const reach = Math.max(10, Math.min(90, 0.42 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    return [
        [from[0] + out[0] * reach, from[1] + out[1] * reach],
        [to[0] + into[0] * reach, to[1] + into[1] * reach],
        to,
    ];
}

/**
 * A curve between two cards for a latent confounder: it avoids other cards, keeps off the ends of edges, and is short.
 *
 * @param taken points where edges end
 * @param rough where there are so many that looking for the best way would take too long
 */
export function arc(from, to, places, card, taken, rough = false) {
    const [a, b] = [places.get(from), places.get(to)];
    const others = [...places].filter(([name]) => name !== from && name !== to).map(([, at]) => at);
    let best = null;
    for (const reach of rough ? [44] : [34, 70]) {
        for (const out of Object.values(NORMAL)) {
            for (const back of Object.values(NORMAL)) {
                for (const shift of rough ? [0] : [0, -0.32, 0.32]) {
                    const start = onSide(a, out, card, shift);
                    const end = onSide(b, back, card, shift);
                    const curve = [
                        start,
                        [start[0] + out[0] * reach, start[1] + out[1] * reach],
                        [end[0] + back[0] * reach, end[1] + back[1] * reach],
                        end,
                    ];
                    const cost = costOf(curve, [a, b], others, card, taken) + 6 * Math.abs(shift);
                    if (!best || cost < best.cost) best = { cost, curve };
                }
            }
        }
    }
    return best.curve;
}

function onSide([x, y], [dx, dy], card, shift) {
    return [x + (dx / 2 + shift * Math.abs(dy)) * card.width, y + (dy / 2 + shift * Math.abs(dx)) * card.height];
}

function costOf(curve, own, others, card, taken) {
    let cost = 0;
    let before = curve[0];
    for (let i = 1; i <= 12; i++) {
        const at = onCurve(curve, i / 12);
        cost += Math.hypot(at[0] - before[0], at[1] - before[1]);
        before = at;
        if (i === 12) break;
        for (const middle of others) cost += inside(at, middle, card, 6) ? 160 : 0;
        for (const middle of own) cost += inside(at, middle, card, -1) ? 200 : 0;
    }
    for (const end of [curve[0], curve[3]]) {
        for (const [x, y] of taken) cost += Math.abs(end[0] - x) + Math.abs(end[1] - y) < 13 ? 60 : 0;
    }
    return cost;
}

function inside([x, y], [cx, cy], card, margin) {
    return Math.abs(x - cx) < card.width / 2 + margin && Math.abs(y - cy) < card.height / 2 + margin;
}

/** The point at a share (0 to 1) of the parameter of a list of Bezier curves. */
export function onCurve(points, share) {
    const pieces = (points.length - 1) / 3;
    const piece = Math.min(pieces - 1, Math.floor(share * pieces));
    const t = share * pieces - piece;
    const u = 1 - t;
    const [a, b, c, d] = points.slice(3 * piece, 3 * piece + 4);
    const weights = [u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t];
    return [0, 1].map((k) => weights[0] * a[k] + weights[1] * b[k] + weights[2] * c[k] + weights[3] * d[k]);
}

/** A point a distance away from the beginning (or, negative, from the end) of a list of Bezier curves. */
export function alongCurve(points, distance) {
    const steps = 16 * ((points.length - 1) / 3);
    const share = (i) => (distance < 0 ? 1 - i / steps : i / steps);
    let left = Math.abs(distance);
    let before = onCurve(points, share(0));
    for (let i = 1; i <= steps; i++) {
        const at = onCurve(points, share(i));
        const step = Math.hypot(at[0] - before[0], at[1] - before[1]);
        if (step >= left) return before.map((x, k) => x + ((at[k] - x) * left) / (step || 1));
        left -= step;
        before = at;
    }
    return before;
}

/** The `d` of an SVG path; `blunt` shortens it at the ends, so that a line does not stick out of its arrowhead. */
export function pathOf(points, blunt = [0, 0]) {
    const at = points.map(([x, y]) => [x, y]);
    pull(at, 0, 1, blunt[0]);
    pull(at, at.length - 1, at.length - 2, blunt[1]);
    const text = at.map(([x, y]) => `${round(x)} ${round(y)}`);
    let d = `M${text[0]}`;
    for (let i = 1; i < text.length; i += 3) d += `C${text[i]} ${text[i + 1]} ${text[i + 2]}`;
    return d;
}

/** Move a point towards its neighbour by a distance. */
function pull(points, at, to, distance) {
    const [dx, dy] = [points[to][0] - points[at][0], points[to][1] - points[at][1]];
    const length = Math.hypot(dx, dy) || 1;
    points[at] = [points[at][0] + (dx * distance) / length, points[at][1] + (dy * distance) / length];
}

/** The `d` of an arrowhead at one end of a curve. */
export function headOf(points, size, atStart = false) {
    const [tip, before] = atStart ? [points[0], points[1]] : [points.at(-1), points.at(-2)];
    const angle = Math.atan2(tip[1] - before[1], tip[0] - before[0]);
    const corner = (turn) => [tip[0] - size * Math.cos(angle + turn), tip[1] - size * Math.sin(angle + turn)];
    const [left, right] = [corner(-0.46), corner(0.46)];
    return `M${tip.map(round).join(" ")}L${left.map(round).join(" ")}L${right.map(round).join(" ")}Z`;
}

function round(x) {
    return Math.round(x * 10) / 10;
}
