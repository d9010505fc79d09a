/**
 * The document of manual edits, read and written exactly as causal_core/edits.py does it, and laid over a graph exactly as
 * causal_core/apply_edits.py does.
 * In the page, edits are plain data in the document's own form and are never changed in place.
 */

import { Mistake, folded, identifier, matched, text } from "./names.mjs";

const KIND = "counterfact.graph_edits";
const VERSION = 1;
const FARTHEST = 100_000;
const MANY = 500;
const MANY_EDGES = 5000;
const BY_HAND = "drawn by hand";

export const NONE = Object.freeze({
    added: [], removed: [], renamed: {}, values: {}, edges: [], confounded: [], do: {}, positions: {},
});

/** Whether nothing is edited, places included. */
export function isEmpty(edits) {
    return Object.values(edits).every((part) => Object.keys(part).length === 0);
}

/** The document of edits as text; empty where there are none. */
export function writeEdits(edits) {
    return isEmpty(edits) ? "" : JSON.stringify({ kind: KIND, schema_version: VERSION, ...edits });
}

/** Read a document; an empty text holds no edits. Throws Mistake for anything that is no such document. */
export function readEdits(document) {
    if (typeof document !== "string") throw new Mistake("the edits must be a JSON text");
    if (!document.trim()) return NONE;
    let data;
    try {
        data = JSON.parse(document);
    } catch (error) {
        throw new Mistake(`the edits are not JSON: ${error.message}`);
    }
    if (!isObject(data) || data.kind !== KIND) throw new Mistake(`expected a JSON document of kind ${KIND}`);
    if (data.schema_version !== VERSION) throw new Mistake(`this editor reads schema_version ${VERSION}`);
    const known = { kind: "", schema_version: 0, ...NONE };
    for (const key of Object.keys(data)) if (!(key in known)) throw new Mistake(`unknown field ${key} in the document`);
    const part = (key) => {
        const value = key in data ? data[key] : NONE[key];
        const fits = isObject(value) && Array.isArray(value) === Array.isArray(NONE[key]);
        if (!fits) throw new Mistake(`${key} must be ${Array.isArray(NONE[key]) ? "a list" : "an object"}`);
        return value;
    };
    const edits = {
        added: limited(part("added"), "added concepts").map(addedConcept),
        removed: limited(part("removed"), "removed concepts").map((name) => identifier(name, "the removed concept")),
        renamed: named(part("renamed"), (name) => identifier(name, "the new name")),
        values: named(part("values"), conceptEdit),
        edges: links(part("edges"), "->", (item) => [item.source, item.target], ["source", "target", "present"])
            .map(([source, target, present]) => ({ source, target, present })),
        confounded: links(part("confounded"), "<->", (item) => item.pair, ["pair", "present"])
            .map(([a, b, present]) => ({ pair: [a, b], present })),
        do: named(part("do"), (value) => text(value, "the value of the intervention")),
        positions: named(part("positions"), position),
    };
    once(edits.added.map((concept) => concept.name), "the added concept");
    once(edits.removed, "the removed concept");
    refuseCycle(edits.edges);
    return edits;
}

/**
 * Lay edits over a graph (null for none).
 *
 * Returns {concepts, edges, confounded, do, notes, final}: the edited graph, the intervention, what of the edits could
 * not be done, and the names that the graph's own concepts have now.
 */
export function applyEdits(graph, edits) {
    const notes = [];
    const { concepts, final } = editedConcepts(graph, edits, notes);
    const known = new Map([...concepts].map(([key, concept]) => [key, concept.name]));
    const edges = editedEdges(graph?.edges ?? [], edits, known, final, notes);
    const confounded = editedPairs(graph?.confounded ?? [], edits, known, final, notes);
    const set = {};
    for (const [name, value] of entries(edits.do)) {
        const concept = concepts.get(folded(name));
        const match = concept ? matched(concept, value) : null;
        const why = concept ? `${concept.name} cannot have this value` : `there is no ${name}`;
        if (match === null) notes.push(`do(${name} = ${value}) is left out: ${why}`);
        else set[concept.name] = match;
    }
    return { concepts: [...concepts.values()], edges, confounded, do: set, notes, final };
}

function editedConcepts(graph, edits, notes) {
    const gone = new Set(edits.removed.map(folded));
    const own = new Map();
    for (const concept of graph?.concepts ?? []) {
        if (!gone.has(folded(concept.name))) own.set(folded(concept.name), concept);
    }
    const wanted = new Map();
    for (const [old, to] of entries(edits.renamed)) {
        if (own.has(folded(old))) wanted.set(own.get(folded(old)).name, to);
        else if (!own.has(folded(to))) notes.push(`${old} is not renamed to ${to}: there is no ${old}`);
    }
    let final;
    for (;;) {
        final = new Map([...own.values()].map(({ name }) => [name, wanted.get(name) ?? name]));
        const count = new Map();
        for (const name of final.values()) count.set(folded(name), (count.get(folded(name)) ?? 0) + 1);
        const clash = [...wanted].find(([, to]) => count.get(folded(to)) > 1);
        if (!clash) break;
        wanted.delete(clash[0]);
        notes.push(`${clash[0]} is not renamed to ${clash[1]}: there is such a concept already`);
    }
    const concepts = new Map();
    for (const concept of own.values()) {
        const name = final.get(concept.name);
        concepts.set(folded(name), { ...concept, name });
    }
    const blank = { phrases: {}, confidence: null, interval: null };
    for (const concept of edits.added) {
        const key = folded(concept.name);
        const edit = { domain: concept.domain.length ? concept.domain : null, value: concept.value };
        concepts.set(key, concepts.has(key) ? changed(concepts.get(key), edit, notes) : { ...blank, ...concept });
    }
    for (const [name, edit] of entries(edits.values)) {
        const key = folded(name);
        if (concepts.has(key)) concepts.set(key, changed(concepts.get(key), edit, notes));
        else notes.push(`the values of ${name} are left out: there is no ${name}`);
    }
    return { concepts, final };
}

function changed(concept, edit, notes) {
    if (edit.domain !== null && edit.domain.join("\n") !== concept.domain.join("\n")) {
        const bare = { ...concept, domain: edit.domain, interval: null };
        const kept = concept.value === null ? null : matched(bare, concept.value);
        concept = { ...bare, value: kept, confidence: kept === null ? null : concept.confidence };
    }
    if (edit.value === null) return concept;
    const value = matched(concept, edit.value);
    if (value !== null) return { ...concept, value, confidence: null };
    notes.push(`${concept.name} = ${edit.value} is left out: ${concept.name} cannot have this value`);
    return concept;
}

function editedEdges(given, edits, known, final, notes) {
    const hand = present(edits.edges.map((e) => [e.source, e.target, e.present]), "->", known, notes);
    const edges = new Map();
    for (const edge of given) {
        const [source, target] = [final.get(edge.source), final.get(edge.target)];
        if (source === undefined || target === undefined) continue;
        if (hand.get(key(source, target))?.present === false || hand.get(key(target, source))?.present) continue;
        edges.set(key(source, target), { ...edge, source, target });
    }
    const drawn = [...hand].filter(([, link]) => link.present);
    for (const [at, { ends: [source, target] }] of drawn) {
        edges.set(at, { source, target, confidence: 1, reason: BY_HAND });
    }
    const next = new Map();
    const join = ({ source, target }) => next.set(source, [...(next.get(source) ?? []), target]);
    for (const [at] of drawn) join(edges.get(at));
    const closing = [];
    const byHand = new Set(drawn.map(([at]) => at));
    const others = drawn.length ? [...edges].filter(([at]) => !byHand.has(at)) : [];
    for (const [at, edge] of others.sort(([, a], [, b]) => b.confidence - a.confidence)) {
        if (reaches(next, edge.target, edge.source)) closing.push(at);
        else join(edge);
    }
    for (const at of closing) {
        const { source, target } = edges.get(at);
        edges.delete(at);
        notes.push(`${source} -> ${target} is left out: it makes a cycle with the edges drawn by hand`);
    }
    return [...edges.values()];
}

function editedPairs(given, edits, known, final, notes) {
    const place = new Map([...known.values()].map((name, i) => [name, i]));
    const ordered = (a, b) => (place.get(a) < place.get(b) ? [a, b] : [b, a]);
    const pairs = new Map();
    for (const pair of given) {
        const ends = pair.map((name) => final.get(name));
        if (!ends.includes(undefined)) pairs.set(key(...ordered(...ends)), ordered(...ends));
    }
    for (const link of present(edits.confounded.map((c) => [...c.pair, c.present]), "<->", known, notes).values()) {
        const ends = ordered(...link.ends);
        if (!link.present) pairs.delete(key(...ends));
        else if (!pairs.has(key(...ends))) pairs.set(key(...ends), ends);
    }
    return [...pairs.values()];
}

/** The links between concepts that are there, by key; those that should be there and cannot are noted. */
function present(list, arrow, known, notes) {
    const found = new Map();
    for (const [a, b, there] of list) {
        const missing = [a, b].filter((name) => !known.has(folded(name)));
        const ends = [known.get(folded(a)), known.get(folded(b))];
        if (!missing.length) found.set(key(...ends), { ends, present: there });
        else if (there) notes.push(`${a} ${arrow} ${b} is left out: there is no ${missing[0]}`);
    }
    return found;
}

function reaches(next, from, to) {
    const seen = new Set([from]);
    for (const name of seen) {
        if (name === to) return true;
        for (const child of next.get(name) ?? []) seen.add(child);
    }
    return false;
}

/** One text for a pair of names, which have no line breaks in them. */
export function key(a, b) {
    return `${a}\n${b}`;
}

/** Entries in the order of the names by code points, as Python sorts them. */
function entries(mapping) {
    const points = (name) => [...name].map((c) => c.codePointAt(0).toString(16).padStart(6, "0")).join("");
    const sorted = Object.entries(mapping).map(([name, value]) => [points(name), name, value]);
    return sorted.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, name, value]) => [name, value]);
}

function isObject(x) {
    return typeof x === "object" && x !== null;
}

function limited(list, what, limit = MANY) {
    if (list.length > limit) throw new Mistake(`the list of ${what} has more than ${limit} items`);
    return list;
}

function once(names, what) {
    if (new Set(names.map(folded)).size < names.length) throw new Mistake(`${what} is given twice`);
}

function onlyFields(item, names, what) {
    if (!isObject(item) || Array.isArray(item)) throw new Mistake(`${what} must be an object`);
    const unknown = Object.keys(item).find((name) => !names.includes(name));
    if (unknown !== undefined) throw new Mistake(`unknown field ${unknown} in ${what}`);
}

function named(mapping, read) {
    const list = limited(Object.entries(mapping), "edits");
    once(list.map(([name]) => identifier(name, "the concept")), "the concept");
    return Object.fromEntries(list.map(([name, value]) => [identifier(name, "the concept"), read(value)]));
}

function domain(list, what) {
    if (!Array.isArray(list)) throw new Mistake(`the values of ${what} must be a list`);
    const values = limited(list, `values of ${what}`).map((value) => text(value, `a value of ${what}`));
    once(values, `a value of ${what}`);
    return values;
}

function inDomain(values, value, what) {
    if (value === null || value === undefined) return null;
    const found = matched({ domain: values }, text(value, `the value of ${what}`));
    if (found === null) throw new Mistake(`${what} has no value ${value}`);
    return found;
}

function addedConcept(item) {
    onlyFields(item, ["name", "domain", "value"], "an added concept");
    const name = identifier(item.name, "the added concept");
    const values = domain("domain" in item ? item.domain : [], name);
    return { name, domain: values, value: inDomain(values, item.value, name) };
}

function conceptEdit(item) {
    onlyFields(item, ["domain", "value"], "the values of a concept");
    const values = item.domain === null || item.domain === undefined ? null : domain(item.domain, "a concept");
    return { domain: values, value: inDomain(values ?? [], item.value, "the concept") };
}

function position(at) {
    const fits = (x) => Number.isFinite(x) && Math.abs(x) <= FARTHEST;
    if (!Array.isArray(at) || at.length !== 2 || !at.every(fits)) throw new Mistake("a position must be two numbers");
    return at;
}

function links(list, arrow, ends, names) {
    const seen = new Set();
    return limited(list, `${arrow} edits`, MANY_EDGES).map((item) => {
        onlyFields(item, names, `an edit of ${arrow}`);
        const pair = ends(item);
        if (!Array.isArray(pair) || pair.length !== 2) throw new Mistake(`an edit of ${arrow} needs two names`);
        if (typeof item.present !== "boolean") throw new Mistake(`an edit of ${arrow} needs present: true or false`);
        const [a, b] = pair.map((name) => identifier(name, `the concept in an edit of ${arrow}`));
        const folds = [folded(a), folded(b)];
        if (folds[0] === folds[1]) throw new Mistake(`${a} ${arrow} ${b} links a concept with itself`);
        const at = key(...(arrow === "->" ? folds : folds.sort()));
        if (seen.has(at)) throw new Mistake(`${a} ${arrow} ${b} is given twice`);
        seen.add(at);
        return [a, b, item.present];
    });
}

function refuseCycle(edges) {
    const next = new Map();
    for (const { source, target, present: there } of edges) {
        if (!there) continue;
        const [a, b] = [folded(source), folded(target)];
        if (reaches(next, b, a)) throw new Mistake(`the edges by hand make a cycle through ${source} -> ${target}`);
        next.set(a, [...(next.get(a) ?? []), b]);
    }
}
