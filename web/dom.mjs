/**
 * Making elements: text always becomes text nodes, so that names and values are never read as HTML.
 */

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
    add: "M8 3v10M3 8h10",
    undo: "M6.5 3.5 3 7l3.5 3.5M3 7h6a4 4 0 0 1 0 8H7",
    redo: "M9.5 3.5 13 7l-3.5 3.5M13 7H7a4 4 0 0 0 0 8h2",
    fit: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
    plus: "M8 4v8M4 8h8",
    minus: "M4 8h8",
    tidy: "M2.5 5.5h4v5h-4zM9.5 2h4v4h-4zM9.5 10h4v4h-4zM6.5 8h1.5V4h1.5M8 8v4h1.5",
    reset: "M4 6.5a4.5 4.5 0 1 1-.4 3.2M3.5 3.2 4 6.6l3.4-.5",
    ask: "M6 6.2a2 2 0 1 1 3 1.7c-.7.4-1 .8-1 1.6M8 11.8v.2M1.8 8a6.2 6.2 0 1 0 12.4 0 6.2 6.2 0 1 0-12.4 0",
    help: "M6 6.2a2 2 0 1 1 3 1.7c-.7.4-1 .8-1 1.6M8 11.8v.2",
    edge: "M2.5 8h9M8.5 4.5 12.5 8l-4 3.5",
    latent: "M2.5 8c2-4 9-4 11 0M2.3 4.8 2.5 8l3-.8M13.7 4.8 13.5 8l-3-.8",
    reverse: "M3 5.5h9M9.5 3 12 5.5 9.5 8M13 10.5H4M6.5 8 4 10.5 6.5 13",
    delete: "M3.5 4.5h9M6 4.5V3h4v1.5M4.8 4.5l.6 8.5h5.2l.6-8.5M7 7v3.5M9 7v3.5",
    note: "M8 2.5 14 13H2zM8 6.5v3M8 11.2v.3",
    lock: "M4.5 7.5h7v5h-7zM6 7.5V5.7a2 2 0 0 1 4 0v1.8",
};

/** An element with attributes (`on...` are listeners, null and false leave one out) and children (text or elements). */
export function make(tag, attributes = {}, ...children) {
    return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function draw(tag, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A small picture from lines; it says nothing to screen readers. */
export function icon(name) {
    const path = draw("path", { d: ICONS[name], fill: "none", stroke: "currentColor", "stroke-width": "1.5" });
    path.setAttribute("stroke-linecap", "round");
    path.setAttribute("stroke-linejoin", "round");
    return draw("svg", { class: "cf-icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}

/** A button with an icon, words, or both; `title` is its name where it has no words. */
export function button(title, { glyph, words, ...attributes }, onclick) {
    const name = words ? {} : { "aria-label": title };
    const label = words ? make("span", { class: "cf-label" }, words) : null;
    const traits = { type: "button", title, ...name, ...attributes, onclick };
    return make("button", traits, glyph ? icon(glyph) : null, label);
}

/** Set attributes where they differ, so that nothing is drawn again in vain. */
export function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
        if (value === null || value === false || value === undefined) node.removeAttribute(name);
        else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
    }
}

/** Set the text of an element where it differs. */
export function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
        else if (value === true) node.setAttribute(name, "");
        else if (value !== null && value !== false && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
}
