/**
 * What a causal graph says: paths, descendants, and the role of every concept under an intervention.
 * A graph is {concepts: [{name, domain, value, ...}], edges: [{source, target, ...}], confounded: [[a, b]]}.
 */

/** Names of the concepts on a shortest directed path, both ends included; null if there is none. */
export function path(edges, from, to) {
    const next = new Map();
    for (const { source, target } of edges) next.set(source, [...(next.get(source) ?? []), target]);
    const before = new Map([[from, null]]);
    const queue = [from];
    for (const name of queue) {
        if (name === to) {
            const names = [];
            for (let at = to; at !== null; at = before.get(at)) names.unshift(at);
            return names;
        }
        for (const child of next.get(name) ?? []) {
            if (before.has(child)) continue;
            before.set(child, name);
            queue.push(child);
        }
    }
    return null;
}

/** Everything that follows from the given concepts, themselves left out. */
export function descendants(edges, sources) {
    const next = new Map();
    for (const { source, target } of edges) next.set(source, [...(next.get(source) ?? []), target]);
    const found = new Set();
    const queue = [...sources];
    for (const name of queue) {
        for (const child of next.get(name) ?? []) {
            if (found.has(child)) continue;
            found.add(child);
            queue.push(child);
        }
    }
    for (const name of sources) found.delete(name);
    return found;
}

/**
 * The role of every concept: "do" (set), "follows" (a descendant, which may change), "kept" (invariant), or "" where
 * nothing is set. Edges into a set concept are cut, so nothing follows through them.
 */
export function roles(graph) {
    const set = new Set(Object.keys(graph.do));
    const follows = descendants(graph.edges.filter((edge) => !set.has(edge.target)), set);
    const role = (name) => (set.has(name) ? "do" : follows.has(name) ? "follows" : set.size ? "kept" : "");
    return new Map(graph.concepts.map(({ name }) => [name, role(name)]));
}
