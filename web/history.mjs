/**
 * Undo and redo: a line of documents and a place in it. Frozen; every step gives a new history.
 */

const LONGEST = 200;

/** A history that begins with a document. */
export function startHistory(document) {
    return { past: [], present: { document, label: "" }, future: [] };
}

/** The history after a change; `label` says what was done. To `merge` makes it one step with one of the same label. */
export function record(history, document, label, merge = false) {
    if (document === history.present.document) return history;
    if (merge && label === history.present.label) return { ...history, present: { document, label }, future: [] };
    return { past: [...history.past, history.present].slice(-LONGEST), present: { document, label }, future: [] };
}

/** One step back: the history and what was taken back; null at the beginning. */
export function undo({ past, present, future }) {
    if (!past.length) return null;
    const history = { past: past.slice(0, -1), present: past.at(-1), future: [present, ...future] };
    return { history, label: present.label };
}

/** One step forward: the history and what was done again; null at the end. */
export function redo({ past, present, future }) {
    if (!future.length) return null;
    const history = { past: [...past, present], present: future[0], future: future.slice(1) };
    return { history, label: future[0].label };
}
