/**
 * The bar below the picture: what is chosen, to be read and changed; or, where nothing is, what the picture means.
 */

import { button, draw, icon, make, say, set } from "./dom.mjs";
import { LINES, ROLES, interventionOf, sureness } from "./words.mjs";

/**
 * Create the bar.
 *
 * @param does what follows: rename(name, to), setDomain(name, typed), setValue(name, value or null), values(name),
 *     link(kind), reverse(), remove(); the first three give false where it cannot be done
 * @returns {element, show(graph, roles, selection), focus(field), focusFirst()}
 */
export function createInspector(does) {
    const concept = conceptPanel(does);
    const line = linePanel(does);
    const legend = make("div", { class: "cf-panel" });
    const panels = [concept.element, line.element, legend];
    const element = make("div", { class: "cf-inspector", role: "group", "aria-label": "Details" }, ...panels);

    function show(graph, roles, selection) {
        const { name, source, target, pair } = selection ?? {};
        concept.element.hidden = !name;
        line.element.hidden = !(source || pair);
        legend.hidden = Boolean(selection);
        if (name) concept.show(graph.concepts.find((other) => other.name === name));
        if (source) {
            const edge = graph.edges.find((other) => other.source === source && other.target === target);
            line.show(`${source} \u2192 ${target}`, [sureness(edge.confidence), edge.reason], true);
        }
        if (pair) line.show(pair.join(" \u2194 "), ["latent confounder: something unseen causes both"], false);
        if (!selection) legend.replaceChildren(...legendOf(graph, roles));
    }

    /** Give the focus to the first button for what is chosen. */
    function focusFirst() {
        element.querySelector(".cf-panel:not([hidden]) button:not([hidden])")?.focus();
    }

    return { element, show, focus: concept.focus, focusFirst };
}

function conceptPanel(does) {
    let shown = null;
    // What cannot be done leaves the old words, and the message says why.
    const told = (result) => result === false && show(shown, true);
    const restore = () => show(shown, true);
    const name = textField("name", () => told(does.rename(shown.name, name.value)), restore);
    const domain = textField("values", () => told(does.setDomain(shown.name, domain.value)), restore);
    const typed = textField("now", () => told(does.setValue(shown.name, typed.value.trim() || null)), restore);
    const pick = () => told(does.setValue(shown.name, picked.value || null));
    const picked = make("select", { "data-field": "now", "aria-label": "Now", onchange: pick });
    set(typed, { "aria-label": "Now", placeholder: "not known" });
    const actions = {
        values: button("", { glyph: "ask", words: "what if\u2026" }, () => does.values(shown.name)),
        edge: button("", { glyph: "edge", words: "causes\u2026" }, () => does.link("edge")),
        latent: button("", { glyph: "latent", words: "shares a cause with\u2026" }, () => does.link("latent")),
        remove: button("", { glyph: "delete", words: "Delete", class: "cf-last" }, does.remove),
    };
    const element = make("div", { class: "cf-panel" },
        make("div", { class: "cf-fields" },
            field("Name", name), field("Values", domain, "cf-wide"),
            // A label can have one control only.
            make("div", { class: "cf-field" }, make("span", { "aria-hidden": "true" }, "Now"), typed, picked)),
        make("div", { class: "cf-actions" }, ...Object.values(actions)));

    /** Show a concept; what is being typed for it stays, unless it is to be restored. */
    function show(concept, anyway = false) {
        const typing = shown?.name === concept.name && !anyway ? document.activeElement : null;
        const write = (input, value) => {
            if (input !== typing && input.value !== value) input.value = value;
        };
        shown = concept;
        write(name, concept.name);
        write(domain, concept.interval ? concept.interval.join(" to ") : concept.domain.join(", "));
        set(domain, { readonly: concept.interval ? "" : null, placeholder: "any, or a list: red, blue" });
        const listed = concept.domain.length > 0;
        typed.hidden = listed;
        picked.hidden = !listed;
        write(typed, concept.value ?? "");
        const values = [...(concept.value === null ? [""] : []), ...concept.domain];
        if (values.join("\n") !== [...picked.options].map((option) => option.value).join("\n")) {
            picked.replaceChildren(...values.map((value) => make("option", { value }, value || "not known")));
        }
        write(picked, concept.value ?? "");
        set(actions.values, { title: `Set ${concept.name} to another value: do() (Enter)` });
        set(actions.edge, { title: `Draw an edge from ${concept.name} to what it causes (E)` });
        set(actions.latent, { title: `Say what shares an unseen cause with ${concept.name} (L)` });
        set(actions.remove, { title: `Delete ${concept.name} (Delete)` });
    }

    return { element, show, focus: (which) => element.querySelector(`[data-field=${which}]:not([hidden])`)?.select() };
}

function linePanel(does) {
    const title = make("strong");
    const why = make("span");
    const reverse = button("Reverse the edge (R)", { glyph: "reverse", words: "Reverse" }, does.reverse);
    const remove = button("Delete it (Delete)", { glyph: "delete", words: "Delete" }, does.remove);
    const said = make("div", { class: "cf-said" }, title, why);
    const element = make("div", { class: "cf-panel" }, said, make("div", { class: "cf-actions" }, reverse, remove));

    function show(words, reasons, directed) {
        say(title, words);
        say(why, reasons.filter(Boolean).join(": "));
        reverse.hidden = !directed;
    }

    return { element, show };
}

/** The intervention in words, and the signs that are in the picture. */
function legendOf(graph, roles) {
    const found = [...roles.values()];
    const count = (role) => found.filter((other) => other === role).length;
    const some = Object.keys(graph.do).length > 0;
    const counts = `${count("follows")} can follow, ${count("kept")} kept`;
    const head = make("div", { class: "cf-said" }, make("strong", {}, interventionOf(graph)), make("span", {}, counts));
    const signs = Object.entries(ROLES).filter(([role]) => some && count(role)).map(([role, { tag, meaning }]) => {
        const tagged = make("span", { class: "cf-tag", "data-role": role }, role === "kept" ? icon("lock") : null, tag);
        return make("span", { class: "cf-sign" }, tagged, meaning);
    });
    const active = (edge) => !(edge.target in graph.do) && ["do", "follows"].includes(roles.get(edge.source));
    const looks = {
        active: graph.edges.some(active),
        cut: graph.edges.some((edge) => edge.target in graph.do),
        latent: graph.confounded.length > 0,
    };
    const seen = Object.keys(looks).filter((look) => looks[look]);
    const lines = seen.map((look) => make("span", { class: "cf-sign" }, sample(look), LINES[look]));
    const hint = make("span", { class: "cf-sign" }, "Click a value to ask: what if it were different?");
    hint.hidden = some || !graph.concepts.length;
    head.hidden = !some;
    return [head, make("div", { class: "cf-legend", "aria-hidden": "true" }, ...signs, ...lines, hint)];
}

function sample(look) {
    const heads = look === "latent" ? "M27 6l-8-3.6v7.2zM1 6l8-3.6v7.2z" : "M27 6l-8-3.6v7.2z";
    const parts = [
        draw("path", { class: "cf-line", d: look === "latent" ? "M8 6H20" : "M1 6H20", "stroke-width": "2" }),
        draw("path", { class: "cf-head", d: heads }),
    ];
    if (look === "cut") parts.push(draw("path", { class: "cf-cross", d: "M8.5 2.5l6 7M14.5 2.5l-6 7" }));
    const line = draw("g", { class: "cf-edge", "data-look": look }, ...parts);
    return draw("svg", { class: "cf-sample", viewBox: "0 0 28 12", width: "28", height: "12" }, line);
}

function field(label, control, extra = "") {
    return make("label", { class: `cf-field ${extra}` }, make("span", {}, label), control);
}

/** A text field that tells when what was typed is final (it is left, or Enter is pressed); Escape takes it back. */
function textField(name, tell, restore) {
    const plain = { type: "text", spellcheck: "false", autocomplete: "off" };
    const input = make("input", { ...plain, "data-field": name, onchange: tell });
    input.addEventListener("keydown", (event) => event.key === "Escape" && restore());
    return input;
}
