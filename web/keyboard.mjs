/**
 * The keys of the editor: what each does where, for the listener and for the list of keys that it shows.
 */

/** [keys as they are shown, what they do, where: "" everywhere on the picture]. */
export const KEYS = [
    ["Arrow keys", "go to the next concept in that direction"],
    ["Shift + arrow keys", "move the concept"],
    ["Enter", "choose its value: do()"],
    ["F2", "rename the concept, change its values"],
    ["E", "draw an edge: go to the effect, press Enter"],
    ["L", "draw a latent confounder: go to the other concept, press Enter"],
    ["Tab", "go to the edges of the concept; arrow keys change between them"],
    ["R", "reverse the edge"],
    ["Delete", "delete the concept or the edge"],
    ["A", "add a concept"],
    ["+  -  0", "zoom in, zoom out, show all"],
    ["Ctrl + Z, Ctrl + Y", "undo, redo"],
    ["Escape", "cancel, go back"],
];

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const NUDGE = 12;

/**
 * Listen to the keys inside an element. No key that means something here reaches the page, which would delete the node
 * or undo the last change of the workflow.
 *
 * @param does what follows: next(direction), nudge(shift), edge(step), values(), rename(), link(kind), finish(),
 *     details(), reverse(), remove(), add(), zoom(factor), fit(), undo(), redo(), cancel(), canCancel()
 * @param where at(target) says what an element belongs to: "concept", "edge", "stage", "field" (of text), "popup", or
 *     "" for other controls; linking() whether a line is being drawn
 */
export function listenToKeys(element, does, { at, linking }) {
    element.addEventListener("keydown", (event) => {
        const place = at(event.target);
        const command = event.ctrlKey || event.metaKey;
        if (place === "field") return command ? null : event.stopPropagation(); // it has its own keys and its own undo
        if (command && !event.altKey) {
            const key = event.key.toLowerCase();
            const action = key === "y" || (key === "z" && event.shiftKey) ? does.redo : key === "z" ? does.undo : null;
            return action ? claim(event, action) : null;
        }
        if (event.altKey) return null;
        const action = meaning(event, place);
        if (action) return claim(event, action);
        return event.key === "Tab" ? null : event.stopPropagation();
    });

    function meaning(event, place) {
        const { key, shiftKey } = event;
        if (key === "Escape") return does.canCancel() ? does.cancel : null;
        if (place === "popup" || place === "") return null;
        const arrow = ARROWS[key];
        if (place === "edge") {
            if (arrow) return () => does.edge(arrow[0] + arrow[1]);
            if (key === "r" || key === "R") return does.reverse;
            if (key === "Enter" || key === " ") return does.details;
        }
        if (place === "concept") {
            if (arrow && shiftKey && !linking()) return () => does.nudge(arrow.map((x) => x * NUDGE));
            if (key === "Enter" || key === " ") return linking() ? does.finish : does.values;
            if (key === "F2") return does.rename;
            if (key === "e" || key === "E") return () => does.link("edge");
            if (key === "l" || key === "L") return () => does.link("latent");
        }
        if (arrow) return () => does.next(arrow);
        if (key === "Delete" || key === "Backspace") return does.remove;
        if (key === "a" || key === "A" || key === "Insert") return does.add;
        if (key === "+" || key === "=") return () => does.zoom(1.25);
        if (key === "-") return () => does.zoom(0.8);
        if (key === "0") return does.fit;
        return null;
    }
}

/**
 * Keep a key from the page and do what it means here. The page listens for Ctrl+Z on the window, before we are asked,
 * and acts in the next frame: by then this event does not have its Ctrl key any more.
 */
function claim(event, action) {
    event.preventDefault();
    event.stopPropagation();
    for (const modifier of ["ctrlKey", "metaKey"]) Object.defineProperty(event, modifier, { value: false });
    action();
}

/** The name of the place that lies next in a direction from one, of a Map name -> [x, y]; null at the rim. */
export function neighbour(places, from, [dx, dy]) {
    const [x0, y0] = places.get(from);
    let best = null;
    for (const [name, [x, y]] of places) {
        const ahead = (x - x0) * dx + (y - y0) * dy;
        const aside = Math.abs((x - x0) * dy) + Math.abs((y - y0) * dx);
        if (ahead <= 1 || aside > 3 * ahead) continue;
        const far = ahead + 2 * aside;
        if (!best || far < best.far) best = { name, far };
    }
    return best?.name ?? null;
}

/**
 * Make the arrow keys go from button to button of a bar, which is one stop for the Tab key. Call what is returned when
 * buttons were hidden or disabled.
 */
export function rove(bar) {
    const items = () => [...bar.querySelectorAll("button:not([disabled], [hidden])")];
    const stopAt = (chosen) => {
        for (const item of bar.querySelectorAll("button")) item.tabIndex = item === chosen ? 0 : -1;
    };
    bar.addEventListener("focusin", (event) => stopAt(event.target.closest("button")));
    bar.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const all = items();
        all[(all.indexOf(document.activeElement) + step + all.length) % all.length]?.focus();
    });
    return () => {
        if (items().filter((item) => item.tabIndex === 0).length !== 1) stopAt(items()[0]);
    };
}
