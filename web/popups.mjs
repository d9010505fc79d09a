/**
 * What opens over the picture and closes again: the values of a concept, the question before a reset, keys and notes.
 */

import { button, make } from "./dom.mjs";
import { KEYS } from "./keyboard.mjs";
import { GESTURES } from "./words.mjs";

/**
 * A place for one popup at a time.
 *
 * @returns {element, open(kind, content, options), close(), kind()}; `close` gives the focus back to where it was
 */
export function createPopups() {
    const element = make("div", { class: "cf-popups" });
    let opened = null;

    function open(kind, content, { near = null, back = null, label }) {
        close(false);
        const role = kind === "reset" ? "alertdialog" : kind === "values" ? "menu" : "dialog";
        const traits = { class: `cf-popup cf-popup-${kind}`, role, "aria-label": label, tabindex: "-1" };
        const popup = make("div", traits, ...content);
        element.append(popup);
        opened = { kind, popup, back };
        if (near) beside(popup, near);
        const first = popup.querySelector("[data-first]") ?? popup.querySelector("button, input");
        first.focus({ preventScroll: true });
    }

    /** Below a box of the stage, above it where there is no room, and inside the stage. */
    function beside(popup, near) {
        const [width, height] = [element.clientWidth, element.clientHeight];
        const [w, h] = [popup.offsetWidth, popup.offsetHeight];
        const below = near.bottom + 6 + h <= height || near.top < height - near.bottom;
        const top = below ? near.bottom + 6 : near.top - 6 - h;
        popup.style.left = `${clamp((near.left + near.right - w) / 2, 6, width - w - 6)}px`;
        popup.style.top = `${clamp(top, 6, height - h - 6)}px`;
    }

    function close(refocus = true) {
        if (!opened) return;
        const { popup, back } = opened;
        opened = null;
        popup.remove();
        if (refocus) back?.focus({ preventScroll: true });
    }

    element.addEventListener("focusout", ({ relatedTarget }) => {
        if (relatedTarget && opened && !opened.popup.contains(relatedTarget)) close(false);
    });

    element.addEventListener("keydown", (event) => {
        const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
        if (!step || event.target.matches("input")) return;
        const all = [...element.querySelectorAll(".cf-popup button, .cf-popup input")];
        event.preventDefault();
        all[(all.indexOf(document.activeElement) + step + all.length) % all.length]?.focus();
    });

    return { element, open, close, kind: () => opened?.kind ?? null };
}

/** The values that a concept can be set to. `choose` gets a value, or null to take do() back. */
export function valueMenu(concept, set, choose) {
    const title = make("div", { class: "cf-popup-title" }, `do(${concept.name} = \u2026)`);
    const option = (value) => {
        const chosen = value === set;
        const now = value === concept.value;
        const marks = {
            class: "cf-choice", role: "menuitemradio", "aria-checked": String(chosen),
            "data-chosen": chosen, "data-first": chosen || (set === undefined && now),
        };
        const words = [make("span", {}, value), now ? make("span", { class: "cf-now" }, "now") : null];
        return make("button", { type: "button", ...marks, onclick: () => choose(chosen ? null : value) }, ...words);
    };
    const parts = [title];
    if (concept.domain.length) {
        parts.push(make("div", { class: "cf-choices", role: "none" }, ...concept.domain.map(option)));
    } else {
        const [low, high] = concept.interval ?? [];
        const hint = concept.interval ? `${low} to ${high}` : (concept.value ?? "any value");
        const label = `Value of ${concept.name}`;
        const input = make("input", { type: "text", placeholder: hint, "aria-label": label, "data-first": true });
        input.value = set ?? "";
        const take = () => choose(input.value.trim() || null);
        input.addEventListener("keydown", (event) => event.key === "Enter" && take());
        const done = button("Set the value", { words: "Set" }, take);
        parts.push(make("div", { class: "cf-typed", role: "none" }, input, done));
    }
    if (set !== undefined) {
        const traits = { words: `Leave ${concept.name} as it is`, class: "cf-clear", role: "menuitem" };
        parts.push(button("Take the intervention back", traits, () => choose(null)));
    }
    return parts;
}

/** The question before all edits are forgotten. */
export function resetQuestion(yes, no) {
    const answers = [
        button("Forget the changes", { words: "Reset", class: "cf-strong" }, yes),
        button("Keep the changes", { words: "Keep", "data-first": true }, no),
    ];
    const question = "Forget everything that you changed in this graph by hand?";
    return [make("p", {}, question), make("div", { class: "cf-row" }, ...answers)];
}

/** The list of keys. */
export function keyList(close) {
    const rows = KEYS.flatMap(([keys, words]) => [make("dt", {}, keys), make("dd", {}, words)]);
    return [
        make("div", { class: "cf-popup-title" }, "Mouse"),
        make("p", {}, GESTURES),
        make("div", { class: "cf-popup-title" }, "Keys"),
        make("dl", {}, ...rows),
        button("Close", { words: "Close", "data-first": true }, close),
    ];
}

/** What of the edits could not be done. */
export function noteList(notes, close) {
    return [
        make("div", { class: "cf-popup-title" }, "Left out"),
        make("ul", {}, ...notes.map((note) => make("li", {}, note))),
        button("Close", { words: "Close", "data-first": true }, close),
    ];
}

function clamp(x, low, high) {
    return Math.max(low, Math.min(x, high));
}
