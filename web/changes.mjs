/**
 * What a person does to a graph, as new edits: each takes the graph below (null for none) and the edits so far, and
 * gives the edits with the change in them. What cannot be done throws a Mistake that says why.
 */

import { NONE, applyEdits } from "./edits.mjs";
import { path } from "./graph.mjs";
import { Mistake, folded, identifier, matched, text } from "./names.mjs";

const FARTHEST = 100_000;

/** Add a concept at [x, y]. */
export function addConcept(base, edits, name, at) {
    name = free(applyEdits(base, edits), identifier(name, "the name"));
    const concept = { name, domain: [], value: null };
    return moveConcepts({ ...edits, added: [...edits.added, concept] }, { [name]: at });
}

/** A name that no concept has: "concept", "concept 2", ... */
export function freshName({ concepts }) {
    const taken = new Set(concepts.map((concept) => folded(concept.name)));
    for (let i = 1; ; i++) {
        const name = i === 1 ? "concept" : `concept ${i}`;
        if (!taken.has(name)) return name;
    }
}

/** Remove a concept with its edges. */
export function removeConcept(base, edits, name) {
    const own = ownName(base, edits, name);
    const renamed = without(edits.renamed, own);
    const removed = own === null ? edits.removed : [...edits.removed, own];
    const left = mentioned({ ...edits, renamed, removed }, name, null);
    return { ...left, added: edits.added.filter((concept) => !same(concept.name, name)) };
}

/** Give a concept another name. */
export function renameConcept(base, edits, name, to) {
    to = identifier(to, "the name");
    if (to === name) return edits;
    if (!same(to, name)) free(applyEdits(base, edits), to);
    const own = ownName(base, edits, name);
    let renamed = edits.renamed;
    if (own !== null) renamed = own === to ? without(renamed, own) : { ...without(renamed, own), [own]: to };
    const added = edits.added.map((concept) => (same(concept.name, name) ? { ...concept, name: to } : concept));
    return mentioned({ ...edits, renamed, added }, name, to);
}

/** Set the list of values of a concept; an empty list stands for any value. */
export function setDomain(base, edits, name, domain) {
    const values = domain.map((value) => text(value, `a value of ${name}`));
    const twice = values.find((value, i) => values.findIndex((other) => same(other, value)) !== i);
    if (twice !== undefined) throw new Mistake(`${name} has the value ${twice} twice: remove one`);
    const next = changeValues(base, edits, name, { domain: values });
    const concept = applyEdits(base, next).concepts.find((c) => c.name === name);
    const set = edits.do[name];
    return set === undefined || matched(concept, set) !== null ? next : setDo(base, next, name, null);
}

/** Set the factual value of a concept; null forgets what was set by hand. */
export function setValue(base, edits, name, value) {
    if (value !== null) value = allowed(applyEdits(base, edits), name, value);
    return changeValues(base, edits, name, { value });
}

/** Set do(name = value); null takes it back. */
export function setDo(base, edits, name, value) {
    const others = Object.fromEntries(Object.entries(edits.do).filter(([other]) => !same(other, name)));
    if (value === null) return { ...edits, do: others };
    return { ...edits, do: { ...others, [name]: allowed(applyEdits(base, edits), name, value) } };
}

/** Draw the edge source -> target. */
export function drawEdge(base, edits, source, target) {
    const graph = applyEdits(base, edits);
    if (source === target) throw new Mistake(`${source} cannot cause itself: choose another concept`);
    if (graph.edges.some((edge) => edge.source === source && edge.target === target)) {
        throw new Mistake(`${source} \u2192 ${target} is there already`);
    }
    refuseCycle(graph.edges, source, target);
    const next = { ...edits, edges: edits.edges.filter((edge) => !joins(edge, source, target)) };
    if (hasEdge(applyEdits(base, next), source, target)) return next;
    return { ...next, edges: [...next.edges, { source, target, present: true }] };
}

/** Take the edge source -> target away; an edge of the graph below that it stood in for does not come back. */
export function eraseEdge(base, edits, source, target) {
    let next = { ...edits, edges: edits.edges.filter((edge) => !joins(edge, source, target)) };
    for (const [a, b] of [[source, target], [target, source]]) {
        if (!hasEdge(applyEdits(base, next), a, b)) continue;
        const others = next.edges.filter((edge) => !joins(edge, a, b));
        next = { ...next, edges: [...others, { source: a, target: b, present: false }] };
    }
    return next;
}

/** Turn the edge source -> target round. */
export function reverseEdge(base, edits, source, target) {
    const { edges } = applyEdits(base, edits);
    refuseCycle(edges.filter((edge) => !joins(edge, source, target)), target, source);
    const others = edits.edges.filter((edge) => !joins(edge, source, target) && !joins(edge, target, source));
    const next = { ...edits, edges: others };
    const graph = applyEdits(base, next);
    if (hasEdge(graph, target, source)) return next;
    return { ...next, edges: [...others, { source: target, target: source, present: true }] };
}

/** Say whether two concepts have a latent common cause. */
export function setConfounded(base, edits, a, b, there) {
    if (a === b) throw new Mistake(`a latent confounder joins two concepts: choose another one than ${a}`);
    const pairs = (list) => list.some((pair) => pair.includes(a) && pair.includes(b));
    const now = pairs(applyEdits(base, edits).confounded);
    if (now && there) throw new Mistake(`${a} \u2194 ${b} is there already`);
    const others = edits.confounded.filter(({ pair }) => !pair.every((name) => same(name, a) || same(name, b)));
    const next = { ...edits, confounded: others };
    if (pairs(applyEdits(base, next).confounded) === there) return next;
    return { ...next, confounded: [...others, { pair: [a, b], present: there }] };
}

/** Put concepts at other places, {name: [x, y]}. */
export function moveConcepts(edits, places) {
    const bounded = (x) => Math.max(-FARTHEST, Math.min(FARTHEST, Math.round(x)));
    const moved = Object.entries(places).map(([name, at]) => [name, at.map(bounded)]);
    return { ...edits, positions: { ...edits.positions, ...Object.fromEntries(moved) } };
}

/** Forget all edits. */
export function reset() {
    return NONE;
}

function same(a, b) {
    return folded(a) === folded(b);
}

function joins(edge, source, target) {
    return same(edge.source, source) && same(edge.target, target);
}

function hasEdge(graph, source, target) {
    return graph.edges.some((edge) => joins(edge, source, target));
}

function refuseCycle(edges, source, target) {
    const back = path(edges, target, source);
    if (!back) return;
    const hint = back.length === 2 ? "Reverse that edge instead" : "Remove one of these edges first";
    throw new Mistake(`${source} \u2192 ${target} would make a cycle: ${[source, ...back].join(" \u2192 ")}. ${hint}`);
}

function free(graph, name) {
    if (graph.concepts.some((concept) => same(concept.name, name))) {
        throw new Mistake(`there is a concept ${name} already: choose another name`);
    }
    return name;
}

function allowed(graph, name, value) {
    const concept = graph.concepts.find((c) => c.name === name);
    const words = text(value, `the value of ${name}`);
    const known = matched(concept, words);
    if (known !== null) return known;
    const range = concept.interval ? `a number from ${concept.interval.join(" to ")}` : concept.domain.join(", ");
    throw new Mistake(`${name} cannot be ${words}: it can be ${range}`);
}

/** The name that the graph below has for a concept of the edited graph; null for one that was added by hand alone. */
function ownName(base, edits, name) {
    for (const [own, final] of applyEdits(base, edits).final) if (final === name) return own;
    return null;
}

function without(mapping, name) {
    return Object.fromEntries(Object.entries(mapping).filter(([other]) => name === null || !same(other, name)));
}

/** Edits in which a concept is called otherwise wherever it is mentioned, or (null) is not mentioned any more. */
function mentioned(edits, name, to) {
    const put = (other) => (same(other, name) ? to : other);
    const mapping = (part) =>
        Object.fromEntries(Object.entries(part).flatMap(([n, x]) => (put(n) === null ? [] : [[put(n), x]])));
    const edges = edits.edges.map((edge) => ({ ...edge, source: put(edge.source), target: put(edge.target) }));
    const confounded = edits.confounded.map((edit) => ({ ...edit, pair: edit.pair.map(put) }));
    return {
        ...edits,
        values: mapping(edits.values),
        do: mapping(edits.do),
        positions: mapping(edits.positions),
        edges: edges.filter((edge) => edge.source !== null && edge.target !== null),
        confounded: confounded.filter((edit) => !edit.pair.includes(null)),
    };
}

function changeValues(base, edits, name, change) {
    if (ownName(base, edits, name) === null) {
        const fill = (concept) => {
            const domain = change.domain ?? concept.domain;
            const value = "value" in change ? change.value : concept.value;
            return { ...concept, domain, value: value === null ? null : matched({ domain }, value) };
        };
        return { ...edits, added: edits.added.map((concept) => (same(concept.name, name) ? fill(concept) : concept)) };
    }
    const values = without(edits.values, name);
    const told = applyEdits(base, { ...edits, values }).concepts.find((concept) => concept.name === name);
    const edit = { domain: null, value: null, ...(edits.values[name] ?? {}), ...change };
    if (edit.domain && edit.domain.join("\n") === told.domain.join("\n") && !told.interval) edit.domain = null;
    const domain = edit.domain ?? told.domain;
    const allows = { ...told, domain, interval: edit.domain ? null : told.interval };
    if (edit.value !== null && matched(allows, edit.value) === null) edit.value = null;
    if (edit.value !== null && edit.value === told.value && edit.domain === null) edit.value = null;
    if (edit.domain === null && edit.value === null) return { ...edits, values };
    return { ...edits, values: { ...values, [name]: edit } };
}
