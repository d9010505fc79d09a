/**
 * The bar above the picture.
 */

import { button, make, say } from "./dom.mjs";
import { rove } from "./keyboard.mjs";

/**
 * Create the bar.
 *
 * @param does what its buttons do: add(), undo(), redo(), notes(opener), zoom(factor), fit(), tidy(), reset(opener),
 *     help(opener); and leave(), called before the button that has the focus is disabled
 * @returns {element, first (its first button), show({past, future, edited, concepts, notes})}
 */
export function createToolbar(does) {
    const words = (glyph, label, extra = "") => ({ glyph, words: label, class: `cf-words ${extra}` });
    const items = {
        add: button("Add a concept (A)", words("add", "Concept"), () => does.add()),
        undo: button("Undo (Ctrl+Z)", { glyph: "undo" }, does.undo),
        redo: button("Redo (Ctrl+Y)", { glyph: "redo" }, does.redo),
        notes: button("What could not be done", words("note", " ", "cf-notes"), () => does.notes(items.notes)),
        out: button("Zoom out (-)", { glyph: "minus" }, () => does.zoom(0.8)),
        fit: button("Show all (0)", { glyph: "fit" }, does.fit),
        in: button("Zoom in (+)", { glyph: "plus" }, () => does.zoom(1.25)),
        tidy: button("Lay the graph out anew", words("tidy", "Tidy"), does.tidy),
        reset: button("Forget all changes made by hand", words("reset", "Reset"), () => does.reset(items.reset)),
        help: button("Keys and gestures", { glyph: "help" }, () => does.help(items.help)),
    };
    const group = (...names) => make("div", { class: "cf-group" }, ...names.map((name) => items[name]));
    const groups = [
        group("add"), group("undo", "redo"), make("span", { class: "cf-gap" }),
        group("notes"), group("out", "fit", "in"), group("tidy", "reset", "help"),
    ];
    const element = make("div", { class: "cf-toolbar", role: "toolbar", "aria-label": "Graph" }, ...groups);
    const stop = rove(element);

    function disable(item, off) {
        if (off && item === document.activeElement) does.leave();
        item.disabled = off;
    }

    function show({ past, future, edited, concepts, notes }) {
        disable(items.undo, !past);
        disable(items.redo, !future);
        disable(items.reset, !edited);
        for (const item of [items.tidy, items.out, items.fit, items.in]) disable(item, !concepts);
        items.notes.hidden = !notes;
        say(items.notes.lastChild, `${notes} left out`);
        stop();
    }

    return { element, first: items.add, show };
}
