/**
 * Names and values as causal_core/errors.py reads them: what they may have in them, and when two of them are the same.
 */

const LONGEST = 80;

/** A mistake of the person at the editor, in words for her. */
export class Mistake extends Error {}

/** Trimmed, in Unicode normal form C; not empty, not too long, and printable. */
export function text(x, what, limit = LONGEST) {
    if (typeof x !== "string") throw new Mistake(`${what} must be text`);
    const words = x.trim().normalize("NFC");
    if (!words) throw new Mistake(`${what} is empty: write at least one character`);
    if ([...words].length > limit) throw new Mistake(`${what} is too long: it has more than ${limit} characters`);
    if (/[\p{C}\p{Z}]/u.test(words.replaceAll(" ", ""))) {
        throw new Mistake(`${what} has control characters in it: retype it without them`);
    }
    return words;
}

/** A name: words of letters and digits of any script, with spaces, _ and - between them. */
export function identifier(x, what) {
    const words = text(x, what).split(/ +/).join(" ");
    if (!/^[\p{L}\p{N}][\p{L}\p{N}\p{M} _-]*$/u.test(words) || words.endsWith("-")) {
        throw new Mistake(`${what} "${words}" may only have letters, digits, spaces, _ and - in it`);
    }
    return words;
}

/** The form in which names and values are compared: case and spacing do not count. */
export function folded(name) {
    const words = name.normalize("NFC").trim().split(/\s+/).join(" ");
    return words.toUpperCase().toLowerCase().replaceAll("\u03c2", "\u03c3");
}

/** The value as a concept spells it; null if it cannot have it. */
export function matched(concept, value) {
    let words;
    try {
        words = text(value, "the value");
    } catch {
        return null;
    }
    if (concept.interval) {
        const number = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(words) ? Number(words) : NaN;
        const [low, high] = concept.interval;
        return number >= low && number <= high ? decimal(number) : null;
    }
    if (!concept.domain.length) return words;
    return concept.domain.find((known) => folded(known) === folded(words)) ?? null;
}

/** A number as Python writes it, so that page and server agree on the value. */
function decimal(number) {
    const size = Math.abs(number);
    if (size >= 1e16 || (size < 1e-4 && size > 0)) return number.toExponential().replace(/e([-+])(\d)$/, "e$10$2");
    return Number.isInteger(number) ? number.toFixed(1) : String(number);
}
