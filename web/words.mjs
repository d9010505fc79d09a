/**
 * What the editor says: names of concepts, edges and roles for screen readers, and the words of the legend, which are
 * those of the picture of the graph (causal_core/draw.py).
 */

export const ROLES = {
    do: { tag: "do", meaning: "set by the intervention" },
    follows: { tag: "follows", meaning: "can change with it" },
    kept: { tag: "kept", meaning: "must not move" },
};

export const LINES = {
    cause: "causes",
    active: "passes the change on",
    cut: "cut by the intervention",
    latent: "latent confounder",
};

export const EMPTY = "Add a concept to draw a graph by hand, or connect concepts, a graph or a language model and run.";

export const GESTURES = "Click a value to set it. Drag a card to move it. Drag the blue dot of a card to what it "
    + "causes, the pink one to what shares an unseen cause with it. Double-click the background to add a concept.";

/** "a", "a and b", "a, b and c", ... */
export function listed(words, most = 6) {
    if (words.length > most) return `${words.slice(0, most).join(", ")} and ${words.length - most} more`;
    return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** do(season = winter), in the order of the concepts. */
export function interventionOf(graph) {
    const set = graph.concepts.filter(({ name }) => name in graph.do).map(({ name }) => `${name} = ${graph.do[name]}`);
    return `do(${set.join(", ")})`;
}

/** A concept in one sentence. */
export function conceptLabel(graph, concept, role) {
    const { name, value } = concept;
    const effects = graph.edges.filter((edge) => edge.source === name).map((edge) => edge.target);
    const causes = graph.edges.filter((edge) => edge.target === name).map((edge) => edge.source);
    const hidden = graph.confounded.filter((pair) => pair.includes(name)).map(([a, b]) => (a === name ? b : a));
    const parts = [name, value === null ? "value not known" : value];
    if (role === "do") parts.push(`set to ${graph.do[name]} by the intervention`);
    else if (role) parts.push(ROLES[role].meaning);
    if (causes.length) parts.push(`caused by ${listed(causes)}`);
    if (effects.length) parts.push(`causes ${listed(effects)}`);
    if (hidden.length) parts.push(`shares a latent confounder with ${listed(hidden)}`);
    return parts.join(", ");
}

/** "90 % sure", or nothing where it is certain. */
export function sureness(confidence) {
    return confidence > 0.995 ? "" : `${Math.round(100 * confidence)} % sure`;
}

/** An edge in one sentence. */
export function edgeLabel({ source, target, confidence, reason }, cut) {
    const parts = [`${source} causes ${target}`, sureness(confidence), reason, cut ? LINES.cut : ""];
    return parts.filter(Boolean).join(", ");
}

/** A latent confounder in one sentence. */
export function pairLabel([a, b]) {
    return `something unseen causes both ${a} and ${b}`;
}

/** "17 concepts, 20 edges, 1 latent confounder". */
export function countsOf({ concepts, edges, confounded }) {
    const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
    const parts = [count(concepts.length, "concept"), count(edges.length, "edge")];
    if (confounded.length) parts.push(count(confounded.length, "latent confounder"));
    return parts.join(", ");
}
