/**
 * The picture of the graph in the editor: cards, edges and arcs, and what part of it is seen. It shows a scene and
 * knows nothing of edits. Looks are those of causal_core/draw.py.
 */

import { alongCurve, arc, curves, headOf, pathOf } from "./curves.mjs";
import { draw, icon, make, say, set } from "./dom.mjs";
import { extent } from "./layout.mjs";
import { ROLES, conceptLabel, countsOf, edgeLabel, pairLabel } from "./words.mjs";

const MARGIN = 16;
const ZOOMS = [0.15, 2.5];
const FAR = 0.62; // below it, cards show nothing but their names, as large as they can
const READABLE = 0.42; // below it, names cannot be read
const MANY_ARCS = 12;

/**
 * Create the picture.
 *
 * A scene is {graph, roles, places, routes, flow, card, selection, current, link, edgeStop, measure}: `current` and
 * `edgeStop` are where the Tab key comes to, `link` is {kind, from, refused} while a line is drawn.
 */
export function createStage() {
    const cards = make("div", { class: "cf-cards" });
    const edgeLayer = draw("g");
    const arcLayer = draw("g");
    const rubberLine = draw("path", { class: "cf-rubber", visibility: "hidden" });
    const lines = draw("svg", { class: "cf-lines", width: "1", height: "1" }, edgeLayer, arcLayer, rubberLine);
    const world = make("div", { class: "cf-world" }, cards, lines);
    const element = make("div", { class: "cf-stage", role: "group", "aria-roledescription": "causal graph" }, world);

    const cardOf = new Map();
    const edgeOf = new Map();
    const arcOf = new Map();
    let scene = null;
    let view = { x: 0, y: 0, zoom: 1 };

    function show(next) {
        scene = next;
        set(element, {
            "aria-label": `Causal graph: ${countsOf(scene.graph)}`,
            "data-linking": scene.link?.kind ?? null,
            "data-flow": scene.flow,
        });
        world.style.setProperty("--cf-card-width", `${scene.card.width}px`);
        world.style.setProperty("--cf-card-height", `${scene.card.height}px`);
        sync(cardOf, cards, scene.graph.concepts.map((c) => [c.name, c]), makeCard, showCard);
        trace();
    }

    /** Draw the lines again, after a change or while a card is dragged, which is named then. */
    function trace(dragged = null) {
        const { graph, places, card, routes, flow, roles } = scene;
        const shapes = curves(graph.edges, places, card, routes, flow);
        const isSet = (name) => roles.get(name) === "do";
        const order = graph.edges.map((edge, i) => [`${edge.source}\n${edge.target}`, { edge, curve: shapes[i] }]);
        sync(edgeOf, edgeLayer, order, makeEdge, (parts, { edge, curve }) => {
            const cut = isSet(edge.target);
            const active = !cut && ["do", "follows"].includes(roles.get(edge.source));
            const width = 0.75 + 1.35 * edge.confidence + (active ? 0.5 : 0);
            const look = cut ? "cut" : active ? "active" : "cause";
            const selected = scene.selection?.source === edge.source && scene.selection?.target === edge.target;
            showLine(parts, curve, { look, width, selected, label: edgeLabel(edge, cut), cuts: cut ? [-1] : [] });
            set(parts.hit, { tabindex: scene.edgeStop === `${edge.source}\n${edge.target}` ? 0 : -1 });
        });
        const taken = shapes.flatMap((curve) => [curve[0], curve.at(-1)]);
        const pairs = graph.confounded.map((pair) => [pair.join("\n"), pair]);
        sync(arcOf, arcLayer, pairs, makeEdge, (parts, [a, b]) => {
            // While a card is dragged, only its own arcs look for a new way: that is what takes time.
            const still = dragged !== null && a !== dragged && b !== dragged;
            const curve = still ? parts.curve : arc(a, b, places, card, taken, pairs.length > MANY_ARCS);
            parts.curve = curve;
            taken.push(curve[0], curve.at(-1));
            const selected = scene.selection?.pair?.[0] === a && scene.selection?.pair?.[1] === b;
            const cuts = [isSet(a) ? 1 : 0, isSet(b) ? -1 : 0].filter(Boolean);
            const label = pairLabel([a, b]);
            showLine(parts, curve, { look: "latent", width: 1.8, selected, label, cuts, both: true });
            set(parts.hit, { tabindex: scene.edgeStop === `${a}\n${b}` ? 0 : -1 });
        });
    }

    function makeCard(name) {
        const parts = {
            name: make("span", { class: "cf-name" }),
            tag: make("span", { class: "cf-tag", "aria-hidden": "true" }),
            before: make("span", { class: "cf-before" }),
            value: make("button", { class: "cf-value", type: "button", tabindex: "-1", "aria-haspopup": "menu" }),
            after: make("span", { class: "cf-after" }),
            sure: make("span", { class: "cf-sure" }),
        };
        parts.value.append(parts.after, parts.before);
        const handle = (kind) =>
            make("span", { class: `cf-handle cf-handle-${kind}`, "data-link": kind, "aria-hidden": "true" });
        const bottom = make("div", { class: "cf-bottom" }, parts.value, parts.sure);
        const traits = { class: "cf-card", role: "group", "aria-roledescription": "concept", "data-name": name };
        const children = [parts.name, bottom, parts.tag, handle("edge"), handle("latent")];
        parts.root = make("div", traits, ...children);
        return parts;
    }

    function showCard(parts, concept) {
        const role = scene.roles.get(concept.name);
        const after = scene.graph.do[concept.name] ?? null;
        const selected = scene.selection?.name === concept.name;
        set(parts.root, {
            "data-role": role || null,
            "data-selected": selected || null,
            "data-from": scene.link?.from === concept.name || null,
            "data-refused": scene.link?.refused?.has(concept.name) || null,
            "aria-label": conceptLabel(scene.graph, concept, role),
            tabindex: scene.current === concept.name ? 0 : -1,
        });
        say(parts.name, concept.name);
        set(parts.name, { title: concept.name.length > 14 ? concept.name : null });
        if (parts.tag.dataset.role !== role) {
            parts.tag.dataset.role = role;
            parts.tag.replaceChildren(...(role === "kept" ? [icon("lock")] : []), ROLES[role]?.tag ?? "");
        }
        const replaced = after !== null && after !== concept.value;
        say(parts.before, after !== null && !replaced ? "" : (concept.value ?? "?"));
        say(parts.after, after ?? "");
        set(parts.value, {
            "data-unknown": concept.value === null && after === null ? true : null,
            "aria-label": `Set the value of ${concept.name} by the intervention`,
            title: `Click to ask: what if ${concept.name} were different?`,
        });
        const doubt = after === null && concept.confidence !== null && concept.confidence < 0.995;
        say(parts.sure, doubt ? `${Math.round(100 * concept.confidence)} %` : "");
        parts.root.style.setProperty("--cf-far", `${nameSize(concept.name, scene.card)}px`);
        put(parts.root, scene.places.get(concept.name));
    }

    /** The size at which a name fills its card, in one line or two. */
    function nameSize(name, { width, height }) {
        const unit = (words) => scene.measure(words, true) / 13;
        const words = name.split(" ");
        const lines = words.slice(1).map((_, i) => [words.slice(0, i + 1).join(" "), words.slice(i + 1).join(" ")]);
        const fits = (parts, most) => Math.min(most, (width - 12) / Math.max(...parts.map(unit)));
        const sizes = [fits([name], height * 0.4), ...lines.map((parts) => fits(parts, (height - 12) / 2.2))];
        return Math.max(9, Math.floor(2 * Math.max(...sizes)) / 2);
    }

    function makeEdge(key, first) {
        const { source, target } = first.edge ?? {};
        const traits = source
            ? { "aria-roledescription": "edge", "data-source": source, "data-target": target }
            : { "aria-roledescription": "latent confounder", "data-pair": key };
        const parts = {
            hit: draw("path", { class: "cf-hit", role: "button", ...traits }),
            line: draw("path", { class: "cf-line" }),
            heads: draw("path", { class: "cf-head" }),
            cuts: draw("g", { class: "cf-cuts" }),
            tip: draw("title"),
        };
        parts.root = draw("g", { class: "cf-edge" }, parts.tip, parts.line, parts.heads, parts.cuts, parts.hit);
        return parts;
    }

    function showLine(parts, curve, { look, width, selected, label, cuts, both = false }) {
        const size = 6 + 1.7 * width;
        const blunt = 0.6 * size;
        set(parts.root, { "data-look": look, "data-selected": selected || null });
        set(parts.line, { d: pathOf(curve, [both ? blunt : 0, blunt]), "stroke-width": width.toFixed(2) });
        set(parts.heads, { d: headOf(curve, size) + (both ? headOf(curve, size, true) : "") });
        set(parts.hit, { d: pathOf(curve), "aria-label": label });
        say(parts.tip, label);
        while (parts.cuts.childElementCount > cuts.length) parts.cuts.lastChild.remove();
        while (parts.cuts.childElementCount < cuts.length) {
            const cross = draw("path", { d: "M-3.6-3.6 3.6 3.6M3.6-3.6-3.6 3.6" });
            parts.cuts.append(draw("g", {}, draw("circle", { r: "7" }), cross));
        }
        cuts.forEach((end, i) => {
            const [x, y] = alongCurve(curve, end * 24);
            set(parts.cuts.children[i], { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
        });
    }

    function put(card, [x, y]) {
        const { width, height } = scene.card;
        card.style.transform = `translate(${(x - width / 2).toFixed(1)}px, ${(y - height / 2).toFixed(1)}px)`;
    }

    /** Show a card elsewhere while it is dragged, with its lines. */
    function place(name, at) {
        if (!cardOf.has(name)) return;
        scene.places.set(name, at);
        for (const key of scene.routes.keys()) if (key.split("\n").includes(name)) scene.routes.delete(key);
        put(cardOf.get(name).root, at);
        trace(name);
    }

    function see(next) {
        view = { ...next, zoom: Math.max(ZOOMS[0], Math.min(ZOOMS[1], next.zoom)) };
        const { x, y, zoom } = view;
        world.style.transform = `translate(${x.toFixed(2)}px, ${y.toFixed(2)}px) scale(${zoom.toFixed(4)})`;
        set(element, { "data-far": view.zoom < FAR || null });
        element.style.setProperty("--cf-zoom", view.zoom.toFixed(3));
    }

    /** Show all of the graph, not larger than life; or, to be readable, as much of it as leaves names readable. */
    function fit(readable = false) {
        const room = [element.clientWidth, element.clientHeight];
        if (!scene?.places.size || !room[0] || !room[1]) return;
        const { left, top, width, height } = extent(scene.places.values(), scene.card);
        const whole = Math.min(1, (room[0] - 2 * MARGIN) / width, (room[1] - 2 * MARGIN) / height);
        const zoom = Math.max(readable ? READABLE : ZOOMS[0], whole);
        // Where not all can be seen, the causes are.
        const start = (space, size, causes) => (size * zoom > space && causes ? MARGIN : (space - size * zoom) / 2);
        const down = scene.flow === "down";
        see({
            zoom,
            x: start(room[0], width, !down) - left * zoom,
            y: start(room[1], height, down) - top * zoom,
        });
    }

    /** Where an event is: in pixels of the stage (whatever the canvas around it is scaled to) and in the picture. */
    function point(event) {
        const box = element.getBoundingClientRect();
        const scale = box.width / element.offsetWidth || 1;
        const inStage = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
        return { inStage, at: [(inStage[0] - view.x) / view.zoom, (inStage[1] - view.y) / view.zoom] };
    }

    /** Zoom by a factor around a point of the stage, by default its middle. */
    function zoomBy(factor, around = [element.clientWidth / 2, element.clientHeight / 2]) {
        const zoom = Math.max(ZOOMS[0], Math.min(ZOOMS[1], view.zoom * factor));
        const [x, y] = around;
        see({ zoom, x: x - ((x - view.x) * zoom) / view.zoom, y: y - ((y - view.y) * zoom) / view.zoom });
    }

    /** The point of the picture that is in the middle of the stage. */
    function middle() {
        return [
            (element.clientWidth / 2 - view.x) / view.zoom,
            (element.clientHeight / 2 - view.y) / view.zoom,
        ];
    }

    /** Move the picture so that a concept is seen. */
    function reveal(name) {
        const at = scene.places.get(name);
        if (!at) return;
        const shift = [element.clientWidth, element.clientHeight].map((room, k) => {
            const middle = at[k] * view.zoom + [view.x, view.y][k];
            const half = (Object.values(scene.card)[k] / 2) * view.zoom + 6;
            return Math.max(0, half - middle) + Math.min(0, room - half - middle);
        });
        if (shift[0] || shift[1]) see({ ...view, x: view.x + shift[0], y: view.y + shift[1] });
    }

    /** The line from a concept to a point, while an edge is drawn; null takes it away. */
    function rubber(from, to) {
        if (!from) return set(rubberLine, { visibility: "hidden" });
        const [x, y] = scene.places.get(from);
        const ends = new Map([["from", [x, y]], ["to", to]]);
        const [curve] = curves([{ source: "from", target: "to" }], ends, { ...scene.card }, new Map(), scene.flow);
        curve[curve.length - 1] = to;
        set(rubberLine, { visibility: "visible", d: pathOf(curve) + headOf(curve, 9) });
    }

    /** The box of a card in pixels of the stage. */
    function boxOf(name) {
        const [x, y] = scene.places.get(name);
        const { width, height } = scene.card;
        const left = (x - width / 2) * view.zoom + view.x;
        const top = (y - height / 2) * view.zoom + view.y;
        return { left, top, right: left + width * view.zoom, bottom: top + height * view.zoom };
    }

    return {
        element, show, place, see, fit, point, middle, zoomBy, reveal, rubber, boxOf,
        view: () => view,
        card: (name) => cardOf.get(name)?.root,
        edge: (source, target) => edgeOf.get(`${source}\n${target}`)?.hit,
        arc: (pair) => arcOf.get(pair.join("\n"))?.hit,
    };
}

/** Make, show and remove elements so that there is one for each key, in order. */
function sync(known, parent, wanted, make, show) {
    const keys = new Set(wanted.map(([key]) => key));
    for (const [key, parts] of known) {
        if (keys.has(key)) continue;
        parts.root.remove();
        known.delete(key);
    }
    for (const [key, item] of wanted) {
        if (!known.has(key)) {
            known.set(key, make(key, item));
            parent.append(known.get(key).root);
        }
        show(known.get(key), item);
    }
}
