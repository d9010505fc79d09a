/**
 * The graph editor: one element whose value is the document of manual edits, over a graph that the server tells.
 *
 * All state that counts is in the value; what else is here (selection, view, history) may be lost when the page moves
 * the element to another place.
 */

import * as change from "./changes.mjs";
import { make, say, set } from "./dom.mjs";
import { NONE, applyEdits, isEmpty, readEdits, writeEdits } from "./edits.mjs";
import { path, roles as rolesOf } from "./graph.mjs";
import { record, redo, startHistory, undo } from "./history.mjs";
import { createInspector } from "./inspector.mjs";
import { listenToKeys, neighbour } from "./keyboard.mjs";
import { layered } from "./layout.mjs";
import { Mistake } from "./names.mjs";
import { listenToPointer, listenToWheel } from "./pointer.mjs";
import { createPopups, keyList, noteList, resetQuestion, valueMenu } from "./popups.mjs";
import { createScenes, freePlace, measure, nearest } from "./scene.mjs";
import { createStage } from "./stage.mjs";
import { createToolbar } from "./toolbar.mjs";
import { EMPTY, countsOf } from "./words.mjs";

/**
 * Create an editor.
 *
 * @param changed called after every edit by hand
 * @param page {wheel(event), middle(event)}: gives an event to the canvas around the editor
 * @returns {element, value (get and set), tell(graph below the edits or null, notes)}
 */
export function createEditor({ changed, page }) {
    let base = null;
    let told = [];
    let edits = NONE;
    let unreadable = null; // {text, message} of a value that is no document of edits; it stays until it is reset
    let history = startHistory("");
    let graph = applyEdits(null, NONE);
    let selection = null; // {name}, {source, target} or {pair}
    let current = null; // the concept that the Tab key comes to
    let link = null; // {kind, from, refused} while a line is drawn
    let ownView = false; // whether she has zoomed or moved the picture
    let scene = null; // what the stage shows

    const sceneOf = createScenes();
    const stage = createStage();
    const popups = createPopups();
    const live = make("div", { class: "cf-status", role: "status", "aria-live": "polite" });
    const hint = make("div", { class: "cf-empty" }, EMPTY);
    const tools = createToolbar({
        add, undo: back, redo: forth, zoom, fit, tidy, reset: askReset, leave: focusCurrent,
        help: (opener) => popups.open("help", keyList(popups.close), { back: opener, label: "Keys and gestures" }),
        notes: (opener) => popups.open("notes", noteList(notes(), popups.close), { back: opener, label: "Notes" }),
    });
    const inspector = createInspector({
        rename: (name, to) => rename(name, to.trim()),
        setDomain: (name, typed) =>
            edit((b, e) => change.setDomain(b, e, name, listOf(typed)), `The values of ${name} are changed`),
        setValue(name, value) {
            const words = value === null ? `${name} has the value that it came with` : `${name} is ${value}`;
            return edit((b, e) => change.setValue(b, e, name, value), words);
        },
        values: openValues, link: startLink, reverse, remove,
    });
    stage.element.append(hint, popups.element);
    const traits = { role: "group", "aria-label": "Graph editor", title: "", "data-capture-wheel": "true" };
    const parts = [tools.element, stage.element, live, inspector.element];
    const element = make("div", { class: "cf-editor", ...traits }, ...parts);

    // ---- the value ----

    function setValue(text) {
        if (text === value()) return;
        unreadable = null;
        try {
            edits = readEdits(text ?? "");
        } catch (error) {
            if (!(error instanceof Mistake)) throw error;
            [edits, unreadable] = [NONE, { text, message: error.message }];
            sayUnreadable();
        }
        history = startHistory(value());
        sceneOf.forget();
        render();
    }

    function value() {
        return unreadable ? unreadable.text : writeEdits(edits);
    }

    function sayUnreadable() {
        announce(`The changes made by hand cannot be read: ${unreadable.message}. Reset forgets them`, true);
    }

    /** What the server says of the graph before the edits. */
    function tell(graphBelow, notesOfServer = []) {
        const names = (some) => JSON.stringify(some?.concepts.map((concept) => concept.name));
        if (names(base) !== names(graphBelow)) {
            ownView = false;
            if (!unreadable) announce("");
        }
        [base, told] = [graphBelow, notesOfServer];
        sceneOf.forget();
        render();
    }

    function notes() {
        return [...new Set([...graph.notes, ...told])];
    }

    // ---- changes ----

    /** Make a change and say so; false, with a message that says why, where it cannot be done. */
    function edit(makeChange, message, { renamedTo, merge } = {}) {
        if (unreadable) {
            sayUnreadable();
            return false;
        }
        let next;
        try {
            next = makeChange(base, edits);
        } catch (error) {
            if (!(error instanceof Mistake)) throw error;
            announce(sentence(error.message), true);
            return false;
        }
        if (renamedTo !== undefined) {
            if (selection?.name) selection = { name: renamedTo };
            current = renamedTo;
        }
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
        setEditsOf(history.present.document);
        render();
        announce(`${words.done}: ${found.label}`);
        changed();
        if (!element.contains(document.activeElement)) focusCurrent();
    }

    /** A document of the history; the first one may be unreadable. */
    function setEditsOf(text) {
        try {
            [edits, unreadable] = [readEdits(text), null];
        } catch (error) {
            [edits, unreadable] = [NONE, { text, message: error.message }];
        }
    }

    function back() {
        step(undo(history), { nothing: "undo", done: "Undone" });
    }

    function forth() {
        step(redo(history), { nothing: "redo", done: "Done again" });
    }

    // ---- what there is to see ----

    function render() {
        graph = applyEdits(base, edits);
        const roles = rolesOf(graph);
        const names = graph.concepts.map((concept) => concept.name);
        if (selection && !isThere(selection)) selection = null;
        if (!names.includes(current)) current = selection?.name ?? names[0] ?? null;
        if (link && !names.includes(link.from)) link = null;
        const place = sceneOf(base, edits, graph);
        scene = { graph, roles, ...place, selection, current, link, edgeStop: edgeStop(), measure };
        stage.show(scene);
        hint.hidden = names.length > 0;
        if (!live.textContent && names.length) say(live, countsOf(graph));
        inspector.show(graph, roles, selection);
        showTools();
        if (place.fresh && !ownView) stage.fit(true);
    }

    function showTools() {
        const [past, future] = [history.past.length, history.future.length];
        const edited = !isEmpty(edits) || Boolean(unreadable);
        tools.show({ past, future, edited, concepts: graph.concepts.length, notes: notes().length });
    }

    function isThere({ name, source, target, pair }) {
        if (name) return graph.concepts.some((concept) => concept.name === name);
        if (source) return graph.edges.some((edge) => edge.source === source && edge.target === target);
        return graph.confounded.some(([a, b]) => a === pair[0] && b === pair[1]);
    }

    /** The edge that the Tab key comes to from the current concept. */
    function edgeStop() {
        if (selection?.pair) return selection.pair.join("\n");
        if (selection?.source) return `${selection.source}\n${selection.target}`;
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
        const at = selection ? elementOf(selection) : current && stage.card(current);
        (at ?? tools.first).focus({ preventScroll: true });
    }

    /** Say something, to eyes and screen readers; `refused` for what cannot be done. */
    function announce(message, refused = false) {
        if (live.textContent === message) live.textContent = ""; // to be read out again
        live.textContent = message;
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
        const card = target.closest(".cf-card");
        const hit = target.closest(".cf-hit");
        if (card === target && selection?.name !== card.dataset.name) select({ name: card.dataset.name });
        if (hit) {
            const { source, target: effect, pair } = hit.dataset;
            const next = pair ? { pair: pair.split("\n") } : { source, target: effect };
            if (JSON.stringify(next) !== JSON.stringify(selection)) select(next);
        }
        const to = card?.dataset.name;
        if (link && card) stage.rubber(to === link.from ? null : link.from, scene.places.get(to));
    });

    // ---- commands ----

    function add(at) {
        const name = change.freshName(graph);
        const to = at ?? freePlace(scene, stage.middle());
        if (!edit((b, e) => change.addConcept(b, e, name, to), `${name} is added: type its name`)) return;
        focusOn({ name });
        inspector.focus("name");
    }

    function rename(name, to) {
        return edit((b, e) => change.renameConcept(b, e, name, to), `${name} is now called ${to}`, { renamedTo: to });
    }

    function remove() {
        if (!selection) return;
        const { name, source, target, pair } = selection;
        if (name) {
            const next = nearest(scene, name);
            const done = edit((b, e) => change.removeConcept(b, e, name), `${name} is deleted`);
            if (done && next) focusOn({ name: next });
            else if (done) tools.first.focus();
            return;
        }
        const done = source
            ? edit((b, e) => change.eraseEdge(b, e, source, target), `${source} \u2192 ${target} is deleted`)
            : edit((b, e) => change.setConfounded(b, e, ...pair, false), `${pair.join(" \u2194 ")} is deleted`);
        if (done) focusOn({ name: source ?? pair[0] });
    }

    function reverse() {
        if (!selection?.source) return;
        const { source, target } = selection;
        const words = `${source} \u2192 ${target} is reversed to ${target} \u2192 ${source}`;
        const done = edit((b, e) => change.reverseEdge(b, e, source, target), words);
        if (done) focusOn({ source: target, target: source });
    }

    function move(name, at, options) {
        ownView = true;
        edit((_, e) => change.moveConcepts(e, { [name]: at }), `${name} is moved`, options);
    }

    function startLink(kind) {
        if (!selection?.name) return;
        beginLink(kind, selection.name);
        const question = kind === "edge" ? "What does X cause?" : "What shares an unseen cause with X?";
        const words = question.replace("X", () => link.from);
        announce(`${words} Click it, or go to it with the arrow keys and press Enter.`);
        stage.card(link.from)?.focus({ preventScroll: true });
    }

    function beginLink(kind, from) {
        const causes = kind === "edge" ? graph.concepts.filter(({ name }) => path(graph.edges, name, from)) : [];
        link = { kind, from, refused: new Set([from, ...causes.map(({ name }) => name)]) };
        render();
    }

    function endLink() {
        link = null;
        stage.rubber(null);
        render();
    }

    function finishLink(to) {
        const { kind, from } = link;
        endLink();
        if (!to || to === from) return announce("No line was drawn");
        const both = `${from} \u2194 ${to} is drawn: something unseen causes both`;
        const done = kind === "edge"
            ? edit((b, e) => change.drawEdge(b, e, from, to), `${from} \u2192 ${to} is drawn`)
            : edit((b, e) => change.setConfounded(b, e, from, to, true), both);
        if (done) focusOn({ name: from });
    }

    function openValues(name) {
        const concept = graph.concepts.find((c) => c.name === name);
        if (!concept) return;
        focusOn({ name });
        const choose = (chosen) => {
            popups.close();
            const words = chosen === null ? `${name} is not set any more` : `do(${name} = ${chosen}): ${reach(name)}`;
            edit((b, e) => change.setDo(b, e, name, chosen), words);
        };
        const place = { near: stage.boxOf(name), back: stage.card(name), label: `Value of ${name}` };
        popups.open("values", valueMenu(concept, graph.do[name], choose), place);
    }

    /** How much an intervention on one more concept reaches, in words. */
    function reach(name) {
        const found = [...rolesOf({ ...graph, do: { ...graph.do, [name]: "" } }).values()];
        const count = (role) => found.filter((other) => other === role).length;
        return `${count("follows")} can follow, ${count("kept")} kept`;
    }

    function tidy() {
        const { places } = layered(graph.concepts.map((concept) => concept.name), graph.edges, scene.card);
        const done = edit((_, e) => change.moveConcepts(e, Object.fromEntries(places)), "The graph is laid out anew");
        if (done) show();
    }

    function askReset(opener) {
        const yes = () => {
            popups.close();
            link = null;
            take(change.reset(), "Everything changed by hand is forgotten. Undo brings it back");
            show();
        };
        popups.open("reset", resetQuestion(yes, popups.close), { back: opener, label: "Reset" });
    }

    /** Show as much as can be read, as at the beginning. */
    function show() {
        ownView = false;
        stage.fit(true);
    }

    function zoom(factor) {
        ownView = true;
        stage.zoomBy(factor);
    }

    function fit() {
        ownView = true;
        stage.fit();
    }

    function cancel() {
        if (popups.kind()) return popups.close();
        if (link) {
            endLink();
            return announce("No line was drawn");
        }
        if (selection && !selection.name && current) return focusOn({ name: current });
        if (inspector.element.contains(document.activeElement)) return focusCurrent();
        return select(null);
    }

    // ---- listeners ----

    const hasFocus = () => element.contains(document.activeElement);
    const moved = () => {
        ownView = true;
    };

    function mark(name) {
        for (const card of stage.element.querySelectorAll(".cf-card[data-over]")) delete card.dataset.over;
        if (name && name !== link?.from) stage.card(name).dataset.over = "";
    }

    listenToPointer(stage, {
        press(target, name) {
            if (popups.kind()) popups.close(false);
            if (link && !target.closest("[data-link]")) return name ? null : cancel();
            if (name) return focusOn({ name });
            return (target.closest(".cf-hit") ?? stage.element).focus({ preventScroll: true });
        },
        click(name) {
            if (!link) return false;
            finishLink(name);
            return true;
        },
        draw(to) {
            mark(null);
            if (link) finishLink(to);
        },
        grabbed: (name) => scene.places.get(name),
        drop: move,
        linking: beginLink,
        hover: (at) => link && stage.rubber(link.from, at),
        over: mark,
        values: openValues,
        rename: () => inspector.focus("name"),
        clear: () => select(null),
        cancel: render,
        panned: moved,
        add,
    }, page);
    listenToWheel(element, stage, { focused: hasFocus, zoomed: moved }, page);

    listenToKeys(element, {
        next(direction) {
            const onCard = document.activeElement.matches(".cf-card");
            const name = current && (onCard ? neighbour(scene.places, current, direction) : current);
            if (name) focusOn({ name });
        },
        nudge([dx, dy]) {
            const [x, y] = scene.places.get(current);
            move(current, [x + dx, y + dy], { merge: true });
            stage.reveal(current);
        },
        edge(shift) {
            const all = edgesOf(current);
            const at = all.findIndex((item) => item.key === edgeStop());
            if (all.length) focusOn(all[(at + shift + all.length) % all.length].selection);
        },
        values: () => openValues(current),
        rename: () => inspector.focus("name"),
        link: startLink,
        finish: () => finishLink(current),
        details: () => inspector.focusFirst(),
        add: () => add(),
        undo: back,
        redo: forth,
        canCancel: () => Boolean(popups.kind() || link || selection),
        reverse, remove, zoom, fit, cancel,
    }, {
        at(target) {
            if (target.matches("input")) return "field";
            if (popups.element.contains(target)) return "popup";
            if (target.closest(".cf-card")) return "concept";
            if (target.closest(".cf-hit")) return "edge";
            return stage.element.contains(target) ? "stage" : "";
        },
        linking: () => Boolean(link),
    });

    element.addEventListener("keydown", ({ target, key }) => {
        if (!["Enter", "Escape"].includes(key) || !target.matches("input, select")) return;
        if (popups.element.contains(target)) {
            if (key === "Escape") popups.close();
        } else {
            target.blur();
            focusCurrent();
        }
    });

    // Marked text of a field may be copied; nothing else here is for the clipboard of the canvas.
    for (const kind of ["copy", "cut", "paste"]) element.addEventListener(kind, (event) => event.stopPropagation());

    stage.element.tabIndex = -1;
    new ResizeObserver(() => ownView || stage.fit(true)).observe(stage.element);
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
