/**
 * Layered layout of a directed acyclic graph, the steps of causal_core/layout.py (Sugiyama, Tagawa and Toda 1981):
 * longest-path layers, stand-ins where an edge passes a layer, fewer crossings by barycentres and swaps, and places
 * next to neighbours by isotonic regression. The same graph always gets the same layout.
 */

const SWEEPS = 12;
const ROUNDS = 30;
const MANY_SLOTS = 250;
const MANY_STAND_INS = 2000;

/**
 * Middle of every concept and the points that long edges pass, in units of the picture.
 *
 * @param names concepts; ties are broken by their order
 * @param edges [{source, target}]
 * @param card {width, height} of a concept
 * @param shape width to height that the picture should have: the graph flows to the right or downwards, whichever
 *     leaves it larger
 * @returns {places: Map name -> [x, y], routes: Map "source\ntarget" -> [[x, y], ...], flow: "right" or "down"}
 */
export function layered(names, edges, card, shape = 1.5) {
    const linked = new Set(edges.flatMap(({ source, target }) => [source, target]));
    const inLayers = names.filter((name) => linked.has(name));
    const across = arranged(inLayers, edges, { size: card.height, gap: 16, standIn: 10 });
    const down = arranged(inLayers, edges, { size: card.width, gap: 18, standIn: 12 });
    const right = spread(across, card.width + 46, (along, beside) => [along, beside]);
    const below = spread(down, card.height + 40, (along, beside) => [beside, along]);
    const alone = names.filter((name) => !linked.has(name));
    const pictures = [{ ...right, flow: "right" }, { ...below, flow: "down" }];
    for (const picture of pictures) addRows(picture.places, alone, card, shape);
    const scale = (picture) => {
        const { width, height } = extent(picture.places.values(), card);
        return Math.min(shape / width, 1 / height);
    };
    return scale(pictures[1]) > 1.15 * scale(pictures[0]) ? pictures[1] : pictures[0];
}

/** The box around the cards at some places. */
export function extent(places, card) {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const [x, y] of places) {
        left = Math.min(left, x - card.width / 2);
        right = Math.max(right, x + card.width / 2);
        top = Math.min(top, y - card.height / 2);
        bottom = Math.max(bottom, y + card.height / 2);
    }
    return { left, top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
}

/** Layers of slots with their places beside each other. */
function arranged(names, edges, { size, gap, standIn }) {
    if (!names.length) return { columns: [], chains: [], beside: new Map() };
    const { columns, chains } = inColumns(names, edges);
    const [left, right] = [new Map(), new Map()];
    for (const { slots } of chains) {
        for (let i = 1; i < slots.length; i++) {
            push(right, slots[i - 1], slots[i]);
            push(left, slots[i], slots[i - 1]);
        }
    }
    const ordered = uncrossed(columns, left, right);
    const sizes = (slot) => (slot.name === undefined ? standIn : size);
    return { columns: ordered, chains, beside: placed(ordered, left, right, sizes, gap) };
}

function inColumns(names, edges) {
    const layer = new Map(names.map((name) => [name, 0]));
    const children = new Map();
    const waiting = new Map(names.map((name) => [name, 0]));
    for (const { source, target } of edges) {
        push(children, source, target);
        waiting.set(target, waiting.get(target) + 1);
    }
    const ready = names.filter((name) => waiting.get(name) === 0);
    for (const name of ready) {
        for (const child of children.get(name) ?? []) {
            layer.set(child, Math.max(layer.get(child), layer.get(name) + 1));
            waiting.set(child, waiting.get(child) - 1);
            if (waiting.get(child) === 0) ready.push(child);
        }
    }
    const count = Math.max(...layer.values()) + 1;
    const slot = new Map(names.map((name) => [name, { name }]));
    const columns = Array.from({ length: count }, (_, i) =>
        names.filter((name) => layer.get(name) === i).map((name) => slot.get(name)));
    const passing = edges.reduce((sum, { source, target }) => sum + layer.get(target) - layer.get(source) - 1, 0);
    const chains = edges.map(({ source, target }) => {
        const slots = [slot.get(source)];
        for (let i = layer.get(source) + 1; passing <= MANY_STAND_INS && i < layer.get(target); i++) {
            const standIn = {};
            columns[i].push(standIn);
            slots.push(standIn);
        }
        return { source, target, slots: [...slots, slot.get(target)] };
    });
    return { columns, chains };
}

function uncrossed(columns, left, right) {
    const place = new Map();
    const renumber = (column) => column.forEach((slot, i) => place.set(slot, (i + 0.5) / column.length));
    const barycentre = (slot, links) => {
        const near = links.get(slot);
        return near ? near.reduce((sum, other) => sum + place.get(other), 0) / near.length : place.get(slot);
    };
    const work = columns.map((column) => [...column]);
    work.forEach(renumber);
    let best = columns;
    let fewest = crossings(work, right, place);
    for (let sweep = 0; sweep < SWEEPS && fewest; sweep++) {
        const [order, links] = sweep % 2 ? [[...work].reverse(), right] : [work, left];
        for (const column of order) {
            const keys = new Map(column.map((slot) => [slot, barycentre(slot, links)]));
            column.sort((a, b) => keys.get(a) - keys.get(b));
            renumber(column);
        }
        if (place.size <= MANY_SLOTS) for (const column of work) swap(column, left, right, place);
        const found = crossings(work, right, place);
        if (found < fewest) [best, fewest] = [work.map((column) => [...column]), found];
    }
    return best;
}

/** Swap neighbours in a column as long as that removes crossings. */
function swap(column, left, right, place) {
    const crossed = (upper, lower) => [left, right].reduce((sum, links) => {
        const [above, below] = [upper, lower].map((slot) => (links.get(slot) ?? []).map((other) => place.get(other)));
        for (const a of above) for (const b of below) sum += a > b;
        return sum;
    }, 0);
    for (let again = true; again;) {
        again = false;
        for (let i = 1; i < column.length; i++) {
            const [upper, lower] = [column[i - 1], column[i]];
            if (crossed(upper, lower) <= crossed(lower, upper)) continue;
            [column[i - 1], column[i]] = [lower, upper];
            const at = place.get(upper);
            place.set(upper, place.get(lower));
            place.set(lower, at);
            again = true;
        }
    }
}

function crossings(columns, right, place) {
    let total = 0;
    for (const column of columns) {
        const seen = [];
        for (const slot of column) {
            const ends = (right.get(slot) ?? []).map((other) => place.get(other));
            for (const end of ends) for (const other of seen) total += other > end;
            seen.push(...ends);
        }
    }
    return total;
}

/** Middles along a column: relax every slot towards its neighbours, column by column, both ways. */
function placed(columns, left, right, size, gap) {
    const at = new Map();
    for (const column of columns) {
        let edge = -column.reduce((sum, slot) => sum + size(slot) + gap, 0) / 2;
        for (const slot of column) {
            at.set(slot, edge + size(slot) / 2);
            edge += size(slot) + gap;
        }
    }
    const pull = (slot) => {
        const near = [...(left.get(slot) ?? []), ...(right.get(slot) ?? [])];
        if (!near.length) return at.get(slot);
        // A long edge bends for its concepts rather than they for it.
        const weights = near.map((other) => (other.name === undefined && slot.name !== undefined ? 0.3 : 1));
        const sum = weights.reduce((a, b) => a + b, 0);
        return near.reduce((total, other, i) => total + weights[i] * at.get(other), 0) / sum;
    };
    for (let round = 0; round < ROUNDS; round++) {
        for (const column of round % 2 ? columns : [...columns].reverse()) {
            const middles = apart(column.map(pull), column.map(size), gap);
            column.forEach((slot, i) => at.set(slot, middles[i]));
        }
    }
    return at;
}

/** Middles in the given order, at least `gap` between them, with the least sum of squared distances to `wanted`. */
export function apart(wanted, sizes, gap) {
    const offsets = [0];
    for (let i = 1; i < sizes.length; i++) offsets.push(offsets[i - 1] + (sizes[i - 1] + sizes[i]) / 2 + gap);
    const pools = [];
    wanted.forEach((want, i) => {
        pools.push({ sum: want - offsets[i], count: 1 });
        while (pools.length > 1 && mean(pools.at(-2)) > mean(pools.at(-1))) {
            const last = pools.pop();
            pools.at(-1).sum += last.sum;
            pools.at(-1).count += last.count;
        }
    });
    const shifts = pools.flatMap((pool) => Array(pool.count).fill(mean(pool)));
    return shifts.map((shift, i) => shift + offsets[i]);
}

function mean({ sum, count }) {
    return sum / count;
}

/** Columns one step apart; `point` turns (along the flow, beside it) into (x, y). */
function spread({ columns, chains, beside }, step, point) {
    const along = new Map();
    columns.forEach((column, i) => column.forEach((slot) => along.set(slot, i * step)));
    const at = (slot) => point(along.get(slot), beside.get(slot));
    const places = new Map();
    for (const slot of along.keys()) if (slot.name !== undefined) places.set(slot.name, at(slot));
    const ways = chains.map(({ source, target, slots }) => [`${source}\n${target}`, slots.slice(1, -1).map(at)]);
    return { places, routes: new Map(ways) };
}

/** Concepts without any edge go into rows below the others. */
function addRows(places, names, card, shape) {
    if (!names.length) return;
    const above = extent(places.values(), card);
    const [wide, high] = [card.width + 16, card.height + 14];
    const square = Math.ceil(Math.sqrt((names.length * shape * high) / wide));
    const fits = places.size ? Math.floor((above.width + 18) / wide) : 0;
    const abreast = Math.max(1, Math.min(names.length, Math.max(square, fits)));
    const middle = places.size ? above.left + above.width / 2 : 0;
    const top = places.size ? above.top + above.height + 26 + card.height / 2 : 0;
    names.forEach((name, i) => {
        const row = Math.floor(i / abreast);
        const inRow = Math.min(abreast, names.length - row * abreast);
        places.set(name, [middle + ((i % abreast) - (inRow - 1) / 2) * wide, top + row * high]);
    });
}

function push(map, key, value) {
    if (map.has(key)) map.get(key).push(value);
    else map.set(key, [value]);
}
