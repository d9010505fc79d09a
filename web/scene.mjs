/**
 * Where the concepts of a graph are drawn: where they were put by hand, else where the layout has them.
 *
 * The layout rests on the graph below the edits, so that edits do not shake the picture.
 */

import { path } from "./graph.mjs";
import { layered } from "./layout.mjs";

const CARD_HEIGHT = 44;
const WIDTHS = [88, 190];
const FONT = 'Inter, "Segoe UI", system-ui, sans-serif';

const ruler = document.createElement("canvas").getContext("2d");

/** Width of words on a card, in units of the picture. */
export function measure(words, bold = false) {
    ruler.font = `${bold ? "600 13px" : "12px"} ${FONT}`;
    return ruler.measureText(words).width;
}

/**
 * The size of all cards: as wide as the longest words, within limits. It does not depend on the intervention, so that
 * nothing moves when one is chosen.
 */
export function cardSize(graph) {
    const widths = graph.concepts.map(({ name, value, confidence }) => {
        const sure = confidence !== null && confidence < 0.995 ? 34 : 0;
        return Math.max(measure(name, true) + 26, measure(value ?? "") + 26 + sure);
    });
    return { width: Math.round(Math.min(WIDTHS[1], Math.max(WIDTHS[0], ...widths))), height: CARD_HEIGHT };
}

/**
 * A function (base, edits, graph) -> {places, routes, flow, card, fresh} that keeps a layout as long as what it rests
 * on stays; `fresh` tells that it is another one than before. Its `forget` has the next one laid out anew.
 */
export function createScenes() {
    let picture = null;
    let tidied = null; // the layout of the edited graph, where all concepts were put by hand

    function sceneOf(base, edits, graph) {
        const card = cardSize(graph);
        const placeless = edits.added.map(({ name }) => name).filter((name) => !(name in edits.positions));
        const key = JSON.stringify([card.width, placeless, [...graph.final]]);
        const fresh = picture?.key !== key;
        if (fresh) picture = { key, ...arranged(base, graph, placeless, card) };
        const names = graph.concepts.map(({ name }) => name);
        const at = (name) => edits.positions[name] ?? picture.places.get(name) ?? [0, 0];
        const places = new Map(names.map((name) => [name, at(name)]));
        let layout = picture;
        if (names.every((name) => name in edits.positions)) {
            const links = graph.edges.map(({ source, target }) => [source, target]);
            const drawn = JSON.stringify([card.width, names, links]);
            if (tidied?.key !== drawn) tidied = { key: drawn, ...layered(names, graph.edges, card) };
            layout = tidied;
        }
        return { places, routes: routesOf(layout, places), flow: picture.flow, card, fresh };
    }

    sceneOf.forget = () => {
        picture = null;
    };
    return sceneOf;
}

/** The layout of the graph below, under the names that its concepts have now, with those that have no place yet. */
function arranged(base, graph, placeless, card) {
    const own = (base?.concepts ?? []).map(({ name }) => name);
    const added = placeless.filter((name) => !own.includes(name));
    const names = [...own, ...added];
    const edges = [...(base?.edges ?? [])];
    for (const edge of graph.edges) {
        const ends = [edge.source, edge.target];
        const isNew = ends.some((name) => added.includes(name)) && ends.every((name) => names.includes(name));
        if (isNew && !path(edges, edge.target, edge.source)) edges.push(edge);
    }
    const layout = layered(names, edges, card);
    const final = (name) => graph.final.get(name) ?? name;
    return {
        places: new Map([...layout.places].map(([name, at]) => [final(name), at])),
        routes: new Map([...layout.routes].map(([key, points]) => [key.split("\n").map(final).join("\n"), points])),
        flow: layout.flow,
    };
}

/** The ways of long edges, where both ends are still in the place that they were laid out for. */
function routesOf(layout, places) {
    const there = (name) => {
        const [now, then] = [places.get(name), layout.places.get(name)];
        return now && then && Math.abs(now[0] - then[0]) < 1 && Math.abs(now[1] - then[1]) < 1;
    };
    return new Map([...layout.routes].filter(([key]) => key.split("\n").every(there)));
}

/** The place next to a point where a card touches no other. */
export function freePlace({ places, card }, middle) {
    const apart = (a, b) => Math.abs(a[0] - b[0]) > card.width + 12 || Math.abs(a[1] - b[1]) > card.height + 12;
    const free = (at) => [...places.values()].every((other) => apart(other, at));
    for (let ring = 0; ring < 60; ring++) {
        const count = Math.max(1, 8 * ring);
        for (let i = 0; i < count; i++) {
            const angle = (2 * Math.PI * i) / count;
            const at = [middle[0] + ring * 30 * Math.cos(angle), middle[1] + ring * 22 * Math.sin(angle)];
            if (free(at)) return at;
        }
    }
    return middle;
}

/** The concept that lies nearest to another one; null if there is no other. */
export function nearest({ places }, name) {
    const [x, y] = places.get(name);
    const far = ([, at]) => Math.hypot(at[0] - x, at[1] - y);
    return [...places].filter(([other]) => other !== name).sort((a, b) => far(a) - far(b))[0]?.[0] ?? null;
}
