/**
 * The graph editor: one element whose value is the document of manual edits, over a graph that the server tells.
 *
 * All state that counts is in the value; what else is here (selection, view, history) may be lost when the page moves
 * the element to another place.
 */

import * as change from "./changes.mjs";
import { button, make, say, set } from "./dom.mjs";
import { applyEdits, isEmpty, NONE, readEdits, writeEdits } from "./edits.mjs";
import { path, roles as rolesOf } from "./graph.mjs";
import { record, redo, startHistory, undo } from "./history.mjs";
import { createInspector } from "./inspector.mjs";
import { listenToKeys, neighbour, rove } from "./keyboard.mjs";
import { layered } from "./layout.mjs";
import { Mistake } from "./names.mjs";
import { listenToPointer, listenToWheel } from "./pointer.mjs";
import { createPopups, keyList, noteList, resetQuestion, valueMenu } from "./popups.mjs";
import { cardSize, createStage } from "./stage.mjs";
import { EMPTY, countsOf } from "./words.mjs";

/**
 * Create an editor.
 *
 * @param changed called after every edit by hand
 * @param page {wheel(event), middle(event)}: gives an event to the canvas around the editor
 * @returns {element, value (get and set), tell(base graph or null, notes)}
 */
export function createEditor({ changed = () => {}, page }) {
    let base = null;
    let told = [];
    let edits = NONE;
    let unreadable = null; // {text, message} of a value that is no document of edits
    let history = startHistory("");
    let graph = applyEdits(null, NONE);
    let roles = new Map();
    let selection = null;
    let current = null; // the concept that the Tab key comes to
    let link = null; // {kind, from, refused} while a line is drawn
    let ownView = false; // whether she has zoomed or moved the picture
    let picture = null; // the layout, kept while what it rests on stays
    let tidied = null; // the layout of the edited graph, where she asked for it
    let shown = null; // the scene on the stage

    const stage = createStage();
    const popups = createPopups();
    const live = make("div", { class: "cf-status", role: "status", "aria-live": "polite" });
    const hint = make("div", { class: "cf-empty" });
    stage.element.append(hint, popups.element);
    const tools = toolbar();
    const inspector = createInspector({
        rename: (name, to) => edit((b, e) => change.renameConcept(b, e, name, to), `${name} is now called ${to.trim()}`, { renamedTo: to.trim() }),
        setDomain: (name, typed) => edit((b, e) => change.setDomain(b, e, name, listOf(typed)), `The values of ${name} are changed`),
        setValue: (name, value) => edit((b, e) => change.setValue(b, e, name, value), value === null ? `${name} has the value that it came with` : `${name} is ${value}`),
        values: openValues, link: startLink, reverse, remove,
    });
    const element = make("div", { class: "cf-editor", role: "group", "aria-label": "Graph editor", title: "", "data-capture-wheel": "true" }, tools.element, stage.element, live, inspector.element);

    // ---- the value ----

    function setValue(text) {
        if (text === value()) return;
        unreadable = null;
        try {
            edits = readEdits(text ?? "");
        } catch (error) {
            if (!(error instanceof Mistake)) throw error;
            [edits, unreadable] = [NONE, { text, message: error.message }];
        }
        history = startHistory(value());
        picture = null;
        render();
    }

    function value() {
        return unreadable ? unreadable.text : writeEdits(edits);
    }

    /** What the server says of the graph before the edits. */
    function tell(graphBelow, notes = []) {
        const names = (some) => JSON.stringify(some?.concepts.map(({ name }) => name));
        if (names(base) !== names(graphBelow)) [ownView, live.textContent] = [false, ""];
        base = graphBelow;
        told = notes;
        picture = null;
        render();
    }

    // ---- changes ----

    /** Make a change and say so; false, with a message that says why, where it cannot be done. */
    function edit(make, message, { renamedTo, merge } = {}) {
        let next;
        try {
            next = make(base, edits);
        } catch (error) {
            if (!(error instanceof Mistake)) throw error;
            announce(sentence(error.message), true);
            return false;
        }
        if (renamedTo !== undefined && selection?.name) selection = { name: renamedTo };
        if (renamedTo !== undefined) current = renamedTo;
        take(next, message, merge);
        return true;
    }

    function take(next, message, merge) {
        [edits, unreadable] = [next, null];
        const before = history;
        history = record(history, writeEdits(edits), message, merge);
        render();
        announce(message);
        if (history !== before) changed();
    }

    function step(found, words) {
        if (!found) return announce(`There is nothing to ${words.nothing}`);
        history = found.history;
        [edits, unreadable] = [readEdits(history.present.document), null];
        render();
        announce(`${words.done}: ${found.label}`);
        changed();
        if (!element.contains(document.activeElement)) focusCurrent();
    }

    // ---- what there is to see ----

    function render() {
        graph = applyEdits(base, edits);
        roles = rolesOf(graph);
        const names = graph.concepts.map(({ name }) => name);
        if (selection && !isThere(selection)) selection = null;
        if (!names.includes(current)) current = selection?.name ?? names[0] ?? null;
        if (link && !names.includes(link.from)) link = null;
        const card = cardSize(graph, measure);
        const before = picture;
        if (picture?.card.width !== card.width || picture.key !== pictureKey()) picture = arrange(card);
        const places = new Map(names.map((name) => [name, edits.positions[name] ?? picture.places.get(name) ?? [0, 0]]));
        const routes = routesOf(places, card);
        shown = { graph, roles, places, routes, flow: picture.flow, card, selection, current, link, edgeStop: edgeStop(), measure };
        stage.show(shown);
        set(element, { "data-empty": names.length ? null : true, "data-do": Object.keys(graph.do).length ? true : null });
        hint.hidden = names.length > 0 || Boolean(unreadable);
        say(hint, EMPTY);
        if (unreadable) {
            hint.hidden = false;
            say(hint, `The editor cannot read its edits (${unreadable.message}). Reset it to begin again.`);
        }
        if (!live.textContent && names.length) say(live, countsOf(graph));
        inspector.show(graph, roles, selection);
        tools.show();
        if (picture !== before && !ownView) stage.fit(true);
    }

    /** The layout rests on the graph below and on concepts that were added without a place: edits do not shake it. */
    function pictureKey() {
        return JSON.stringify([placeless(), [...graph.final]]);
    }

    function placeless() {
        return edits.added.map(({ name }) => name).filter((name) => !(name in edits.positions));
    }

    /** The ways of long edges, where both ends are still in the place that they were laid out for. */
    function routesOf(places, card) {
        const placed = [...places.keys()].every((name) => name in edits.positions);
        if (placed) {
            const key = JSON.stringify([card.width, graph.concepts.map(({ name }) => name), graph.edges.map(({ source, target }) => [source, target])]);
            if (tidied?.key !== key) tidied = { key, ...layered([...places.keys()], graph.edges, card) };
        }
        const layout = placed ? tidied : picture;
        const there = (name) => {
            const [now, then] = [places.get(name), layout.places.get(name)];
            return now && then && Math.abs(now[0] - then[0]) < 1 && Math.abs(now[1] - then[1]) < 1;
        };
        return new Map([...layout.routes].filter(([at]) => at.split("\n").every(there)));
    }

    function arrange(card) {
        const own = (base?.concepts ?? []).map(({ name }) => name);
        const added = placeless().filter((name) => !own.includes(name));
        const names = [...own, ...added];
        const edges = [...(base?.edges ?? [])];
        for (const edge of graph.edges) {
            const ends = [edge.source, edge.target];
            const isNew = ends.some((name) => added.includes(name)) && ends.every((name) => names.includes(name));
            if (isNew && !path(edges, edge.target, edge.source)) edges.push(edge);
        }
        const layout = layered(names, edges, card);
        const final = (name) => graph.final.get(name) ?? name;
        const places = new Map([...layout.places].map(([name, at]) => [final(name), at]));
        const routes = new Map([...layout.routes].map(([at, points]) => [at.split("\n").map(final).join("\n"), points]));
        return { places, routes, flow: layout.flow, card, key: pictureKey() };
    }

    function isThere({ name, source, target, pair }) {
        if (name) return graph.concepts.some((concept) => concept.name === name);
        if (source) return graph.edges.some((edge) => edge.source === source && edge.target === target);
        return graph.confounded.some(([a, b]) => a === pair[0] && b === pair[1]);
    }

    /** The edge that the Tab key comes to from the current concept. */
    function edgeStop() {
        if (selection && !selection.name) return selection.pair ? selection.pair.join("\n") : `${selection.source}\n${selection.target}`;
        return edgesOf(current)[0]?.key ?? null;
    }

    function edgesOf(name) {
        const edges = graph.edges.filter((edge) => edge.source === name || edge.target === name);
        const pairs = graph.confounded.filter((pair) => pair.includes(name));
        return [
            ...edges.map(({ source, target }) => ({ key: `${source}\n${target}`, selection: { source, target } })),
            ...pairs.map((pair) => ({ key: pair.join("\n"), selection: { pair } })),
        ];
    }

    function elementOf({ name, source, target, pair }) {
        return name ? stage.card(name) : pair ? stage.arc(pair) : stage.edge(source, target);
    }

    function focusCurrent() {
        (selection ? elementOf(selection) : (current && stage.card(current)) || tools.first())?.focus({ preventScroll: true });
    }

    /** Say something, to eyes and screen readers; `refused` for what cannot be done. */
    function announce(message, refused = false) {
        if (live.textContent === message) live.textContent = "";
        live.textContent = message ?? "";
        set(live, { "data-refused": refused || null });
    }

    // ---- selection ----

    function select(next) {
        const active = document.activeElement;
        if (inspector.element.contains(active)) active.blur(); // what was typed counts for what was selected
        selection = next && isThere(next) ? next : null;
        if (selection?.name) current = selection.name;
        render();
    }

    function focusOn(next) {
        select(next);
        if (selection) elementOf(selection)?.focus({ preventScroll: true });
        if (selection?.name) stage.reveal(selection.name);
    }

    stage.element.addEventListener("focusin", ({ target }) => {
        const name = target.closest?.(".cf-card")?.dataset.name;
        if (name && target.matches(".cf-card") && selection?.name !== name) select({ name });
        if (target.matches?.(".cf-hit")) {
            const { source, target: to, pair } = target.dataset;
            const next = pair ? { pair: pair.split("\n") } : { source, target: to };
            if (JSON.stringify(next) !== JSON.stringify(selection)) select(next);
        }
        if (link && name) stage.rubber(name === link.from ? null : link.from, shown.places.get(name));
    });

    // ---- commands ----

    function startLink(kind) {
        if (!selection?.name) return;
        beginLink(kind, selection.name);
        const words = kind === "edge" ? `What does ${link.from} cause?` : `What shares an unseen cause with ${link.from}?`;
        announce(`${words} Click it, or go to it with the arrow keys and press Enter.`);
        stage.card(link.from)?.focus({ preventScroll: true });
    }

    function beginLink(kind, from) {
        const refused = new Set([from]);
        if (kind === "edge") for (const { name } of graph.concepts) if (path(graph.edges, name, from)) refused.add(name);
        link = { kind, from, refused };
        render();
    }

    function finishLink(to) {
        const { kind, from } = link;
        link = null;
        stage.rubber(null);
        render();
        if (!to) return announce("No line was drawn");
        const done = kind === "edge"
            ? edit((b, e) => change.drawEdge(b, e, from, to), `${from} \u2192 ${to} is drawn`)
            : edit((b, e) => change.setConfounded(b, e, from, to, true), `${from} \u2194 ${to} is drawn: something unseen causes both`);
        if (done) focusOn({ name: from });
    }

    function add(at) {
        const name = change.freshName(graph);
        if (!edit((b, e) => change.addConcept(b, e, name, at ?? freePlace()), `${name} is added: type its name`)) return;
        focusOn({ name });
        inspector.focus("name");
    }

    /** A place for a new concept: in view, and on no other card. */
    function freePlace() {
        const { x, y, zoom } = stage.view();
        const { width, height } = shown.card;
        const middle = [(stage.element.clientWidth / 2 - x) / zoom, (stage.element.clientHeight / 2 - y) / zoom];
        if (!shown.places.size) return [0, 0];
        const free = (at) => [...shown.places.values()].every((other) => Math.abs(other[0] - at[0]) > width + 12 || Math.abs(other[1] - at[1]) > height + 12);
        for (let ring = 0; ring < 60; ring++) {
            for (let i = 0; i < 8 * ring || i === 0; i++) {
                const angle = (2 * Math.PI * i) / (8 * ring || 1);
                const at = [middle[0] + ring * 30 * Math.cos(angle), middle[1] + ring * 22 * Math.sin(angle)];
                if (free(at)) return at;
            }
        }
        return middle;
    }

    function remove() {
        if (!selection) return;
        const { name, source, target, pair } = selection;
        if (name) {
            const next = nearest(name);
            const done = edit((b, e) => change.removeConcept(b, e, name), `${name} is deleted`);
            if (done && next) focusOn({ name: next });
            else if (done) tools.first().focus();
        } else {
            const keep = source ?? pair[0];
            const done = source
                ? edit((b, e) => change.eraseEdge(b, e, source, target), `${source} \u2192 ${target} is deleted`)
                : edit((b, e) => change.setConfounded(b, e, ...pair, false), `${pair.join(" \u2194 ")} is deleted`);
            if (done) focusOn({ name: keep });
        }
    }

    function nearest(name) {
        const [x, y] = shown.places.get(name);
        const far = ([, at]) => Math.hypot(at[0] - x, at[1] - y);
        return [...shown.places].filter(([other]) => other !== name).sort((a, b) => far(a) - far(b))[0]?.[0] ?? null;
    }

    function reverse() {
        if (!selection?.source) return;
        const { source, target } = selection;
        const words = `${source} \u2192 ${target} is reversed to ${target} \u2192 ${source}`;
        if (edit((b, e) => change.reverseEdge(b, e, source, target), words)) focusOn({ source: target, target: source });
    }

    function openValues(name) {
        const concept = graph.concepts.find((c) => c.name === name);
        if (!concept) return;
        focusOn({ name });
        const choose = (chosen) => {
            popups.close();
            const words = chosen === null ? `${name} is not set any more` : `do(${name} = ${chosen}): ${followers(name)}`;
            edit((b, e) => change.setDo(b, e, name, chosen), words);
        };
        popups.open("values", valueMenu(concept, graph.do[name], choose), { near: stage.boxOf(name), back: stage.card(name), label: `Value of ${name}` });
    }

    function followers(name) {
        const next = rolesOf({ ...graph, do: { ...graph.do, [name]: "" } });
        const count = (role) => [...next.values()].filter((other) => other === role).length;
        return `${count("follows")} can follow, ${count("kept")} kept`;
    }

    function tidy() {
        const layout = layered(graph.concepts.map(({ name }) => name), graph.edges, shown.card);
        ownView = false;
        take(change.moveConcepts(edits, Object.fromEntries(layout.places)), "The graph is laid out anew");
        stage.fit(true);
    }

    function askReset(opener) {
        const yes = () => {
            popups.close();
            ownView = false;
            link = null;
            take(NONE, "Everything changed by hand is forgotten. Undo brings it back");
            stage.fit(true);
        };
        popups.open("reset", resetQuestion(yes, () => popups.close()), { back: opener, label: "Reset" });
    }

    function zoom(factor) {
        stage.zoomBy(factor);
        ownView = true;
        tools.show();
    }

    function fit() {
        ownView = true;
        stage.fit();
        tools.show();
    }

    function cancel() {
        if (popups.kind()) return popups.close();
        if (link) {
            link = null;
            stage.rubber(null);
            render();
            return announce("No line was drawn");
        }
        if (selection && !selection.name && current) return focusOn({ name: current });
        if (inspector.element.contains(document.activeElement)) return focusCurrent();
        select(null);
    }

    function back() {
        step(undo(history), { nothing: "undo", done: "Undone" });
    }

    function forth() {
        step(redo(history), { nothing: "redo", done: "Done again" });
    }

    // ---- the bar above ----

    function toolbar() {
        const items = {
            add: button("Add a concept (A)", { glyph: "add", words: "Concept", class: "cf-words" }, () => add()),
            undo: button("Undo (Ctrl+Z)", { glyph: "undo" }, back),
            redo: button("Redo (Ctrl+Y)", { glyph: "redo" }, forth),
            notes: button("What could not be done", { glyph: "note", words: " ", class: "cf-words cf-notes" }, () => openNotes()),
            out: button("Zoom out (-)", { glyph: "minus" }, () => zoom(0.8)),
            fit: button("Show all (0)", { glyph: "fit" }, fit),
            in: button("Zoom in (+)", { glyph: "plus" }, () => zoom(1.25)),
            tidy: button("Lay the graph out anew", { glyph: "tidy", words: "Tidy", class: "cf-words" }, tidy),
            reset: button("Forget all changes made by hand", { glyph: "reset", words: "Reset", class: "cf-words" }, () => askReset(items.reset)),
            help: button("Keys and gestures", { glyph: "help" }, () => openHelp()),
        };
        const group = (...names) => make("div", { class: "cf-group" }, ...names.map((name) => items[name]));
        const bar = make("div", { class: "cf-toolbar", role: "toolbar", "aria-label": "Graph" }, group("add"), group("undo", "redo"), make("span", { class: "cf-gap" }), group("notes"), group("out", "fit", "in"), group("tidy", "reset", "help"));
        const stop = rove(bar);
        const openHelp = () => popups.open("help", keyList(() => popups.close()), { back: items.help, label: "Keys and gestures" });
        const openNotes = () => popups.open("notes", noteList(allNotes(), () => popups.close()), { back: items.notes, label: "Notes" });
        const disable = (item, off) => {
            if (off && item === document.activeElement) focusCurrent();
            item.disabled = off;
        };
        return {
            element: bar,
            first: () => items.add,
            show() {
                disable(items.undo, !history.past.length);
                disable(items.redo, !history.future.length);
                disable(items.reset, isEmpty(edits) && !unreadable);
                disable(items.tidy, !graph.concepts.length);
                for (const item of [items.out, items.fit, items.in]) disable(item, !graph.concepts.length);
                const notes = allNotes();
                items.notes.hidden = !notes.length;
                say(items.notes.lastChild, `${notes.length} left out`);
                stop();
            },
        };
    }

    function allNotes() {
        return [...new Set([...graph.notes, ...told])];
    }

    // ---- listeners ----

    listenToPointer(stage, {
        press(target, name) {
            if (popups.kind()) popups.close(false);
            if (link && !target.closest("[data-link]")) return name ? null : cancel();
            const hit = target.closest(".cf-hit");
            if (name) focusOn({ name });
            else if (hit) hit.focus({ preventScroll: true });
            else stage.element.focus({ preventScroll: true });
        },
        click(name) {
            if (!link) return false;
            finishLink(name);
            return true;
        },
        grabbed: (name) => shown.places.get(name),
        drop(name, at) {
            ownView = true;
            edit((b, e) => change.moveConcepts(e, { [name]: at }), `${name} is moved`);
        },
        linking: beginLink,
        hover: (at) => link && stage.rubber(link.from, at),
        over(name) {
            for (const card of stage.element.querySelectorAll(".cf-card[data-over]")) delete card.dataset.over;
            if (name && name !== link?.from) stage.card(name).dataset.over = "";
        },
        draw(kind, from, to) {
            for (const card of stage.element.querySelectorAll(".cf-card[data-over]")) delete card.dataset.over;
            if (link) finishLink(to === from ? null : to);
        },
        values: openValues,
        rename: () => inspector.focus("name"),
        add,
        clear: () => select(null),
        cancel: render,
        panned() {
            ownView = true;
        },
    }, page);

    listenToWheel(element, stage, {
        focused: () => element.contains(document.activeElement),
        zoomed() {
            ownView = true;
        },
    }, page);

    listenToKeys(element, {
        next(direction) {
            const onCard = document.activeElement.matches(".cf-card");
            const name = current && (onCard ? neighbour(shown.places, current, direction) : current);
            if (name) focusOn({ name });
        },
        nudge([dx, dy]) {
            const [x, y] = shown.places.get(current);
            ownView = true;
            edit((b, e) => change.moveConcepts(e, { [current]: [x + dx, y + dy] }), `${current} is moved`, { merge: true });
            stage.reveal(current);
        },
        values: () => openValues(current),
        rename: () => inspector.focus("name"),
        link: startLink,
        finish: () => finishLink(current === link.from ? null : current),
        details: () => inspector.element.querySelector(".cf-panel:not([hidden]) button:not([hidden])")?.focus(),
        edge(step) {
            const all = edgesOf(current);
            const at = all.findIndex((item) => item.key === edgeStop());
            if (all.length) focusOn(all[(at + step + all.length) % all.length].selection);
        },
        reverse, remove, zoom, fit, cancel,
        add: () => add(),
        undo: back,
        redo: forth,
        canCancel: () => Boolean(popups.kind() || link || selection),
    }, {
        at(target) {
            if (popups.element.contains(target)) return target.matches("input") ? "field" : "popup";
            if (target.matches("input, select, textarea")) return "field";
            if (target.closest(".cf-card")) return "concept";
            if (target.closest(".cf-hit")) return "edge";
            if (stage.element.contains(target)) return "stage";
            return target.closest(".cf-toolbar") ? "toolbar" : "";
        },
        linking: () => Boolean(link),
    });

    inspector.element.addEventListener("keydown", (event) => {
        if (!event.target.matches("input, select")) return;
        if (event.key === "Enter" || event.key === "Escape") {
            event.target.blur();
            focusCurrent();
        }
    });
    popups.element.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && event.target.matches("input")) popups.close();
    });
    // Marked text of a field may be copied; nothing else here is for the clipboard of the canvas.
    for (const kind of ["copy", "cut", "paste"]) element.addEventListener(kind, (event) => event.stopPropagation());

    stage.element.tabIndex = -1;
    const seen = new ResizeObserver(() => !ownView && stage.fit(true));
    seen.observe(stage.element);
    render();

    return {
        element,
        tell,
        get value() {
            return value();
        },
        set value(text) {
            setValue(text);
        },
    };
}

function listOf(typed) {
    return typed.split(",").map((word) => word.trim()).filter(Boolean);
}

function sentence(words) {
    return words[0].toUpperCase() + words.slice(1);
}

const ruler = document.createElement("canvas").getContext("2d");

/** Width of words on a card. */
function measure(words, bold = false) {
    ruler.font = `${bold ? "600 13px" : "12px"} Inter, "Segoe UI", system-ui, sans-serif`;
    return ruler.measureText(words).width;
}
