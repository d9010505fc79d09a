/**
 * What the pack adds to ComfyUI's page: the graph editor of Build Causal Graph, and settings for language models.
 */

import { app } from "../../scripts/app.js";
import { createEditor } from "./editor.mjs";

const WIDGET = "CAUSAL_GRAPH_EDITOR";
const BASE = "counterfact_graph"; // property of a node: the graph below the edits, as the last run told it
const SIZE = { width: 560, height: 500 };
const TEXT_HEIGHT = 90;
// How the canvas takes the middle button, with which it is moved.
const MIDDLE = { pointerdown: "processMouseDown", pointermove: "processMouseMove", pointerup: "processMouseUp" };

function addStyles() {
    const href = new URL("./counterfact.css", import.meta.url).href;
    if (document.querySelector(`link[href="${href}"]`)) return;
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href });
    document.head.append(link);
}

/** The widget of an input of type CAUSAL_GRAPH_EDITOR: an editor whose value is the text of its document. */
function graphEditor(node, name) {
    addStyles();
    const editor = createEditor({
        changed() {
            // Between the two, the change becomes a step of the workflow's own history.
            app.canvas?.emitBeforeChange();
            widget.callback?.(editor.value);
            app.canvas?.emitAfterChange();
            node.graph?.setDirtyCanvas(true);
        },
        page: {
            wheel(event) {
                event.preventDefault();
                event.stopPropagation();
                app.canvas?.processMouseWheel(event);
            },
            middle(event) {
                app.canvas?.[MIDDLE[event.type]](event);
            },
        },
    });
    const widget = node.addDOMWidget(name, WIDGET, editor.element, {
        getValue: () => editor.value,
        setValue: (value) => {
            editor.value = typeof value === "string" ? value : "";
        },
        getMinHeight: () => SIZE.height,
        socketless: true,
    });
    // A larger node is for a larger graph, not for more lines of typed edges.
    for (const { options } of node.widgets) if (options !== widget.options) options.getMaxHeight ??= () => TEXT_HEIGHT;
    widget.element.style.setProperty("--cf-least-height", `${SIZE.height - 20}px`);
    const take = (output) => {
        if (output?.counterfact_base) {
            const base = output.counterfact_base[0];
            const graph = base ? seen(JSON.parse(base)) : null;
            node.properties[BASE] = { graph, notes: output.counterfact_notes ?? [] };
        }
        const told = node.properties?.[BASE];
        editor.tell(told?.graph ?? null, told?.notes ?? []);
    };
    after(node, "onExecuted", take);
    after(node, "onConfigure", () => {
        // The last run knows better than a saved workflow, also where the page took a change of the workflow back.
        take(app.nodeOutputs?.[node.id]);
        requestAnimationFrame(() => remount(node, editor.element));
    });
    nodeOf.set(editor.element, node);
    return { widget, minWidth: SIZE.width, minHeight: SIZE.height };
}

const nodeOf = new WeakMap(); // the node of an editor's element

/**
 * Put an editor in the place of one whose node is gone. Vue keeps what it shows of a node when the page makes the node
 * anew with the same id, as it does when it takes a change of the workflow back.
 */
function remount(node, element) {
    if (element.isConnected) return;
    for (const shown of document.querySelectorAll(".cf-editor")) {
        const owner = nodeOf.get(shown);
        if (!owner || owner === node || owner.id !== node.id) continue;
        if ((owner.graph ?? node.graph)?.getNodeById(node.id) === node) shown.replaceWith(element);
    }
}

/** What the editor shows of a graph. */
function seen({ concepts, edges, confounded }) {
    return { concepts, edges, confounded };
}

/** Let a function follow a callback of a node. */
function after(node, callback, follow) {
    const before = node[callback];
    node[callback] = function (...values) {
        const result = before?.apply(this, values);
        follow(...values);
        return result;
    };
}

/** A text field of the settings that does not show what is in it. */
function secret(name, change, value, attributes) {
    const input = document.createElement("input");
    Object.assign(input, { type: "password", value: value ?? "", autocomplete: "off", ...attributes });
    input.setAttribute("aria-label", name);
    input.className = "p-inputtext p-component";
    input.addEventListener("change", () => change(input.value));
    return input;
}

app.registerExtension({
    name: "Counterfact.GraphEditor",
    settings: [
        {
            id: "Counterfact.LanguageModel.URL",
            category: ["Counterfact", "Language model", "URL"],
            name: "Addresses of language model servers",
            tooltip: "Servers on other machines that workflows may use, with spaces between them, such as "
                + "https://example.org/v1. Language Model Server uses the first one where the node itself names none. "
                + "Servers on this machine need not be listed.",
            type: "text",
            defaultValue: "",
        },
        {
            id: "Counterfact.LanguageModel.Key",
            category: ["Counterfact", "Language model", "Key"],
            name: "Key of the first of these servers",
            tooltip: "Sent to that server alone, and never saved in a workflow; it lies in ComfyUI's settings on this "
                + "machine as it is. Leave it empty if the server asks for none, or if COUNTERFACT_LLM_KEY holds it.",
            type: secret,
            defaultValue: "",
        },
    ],
    getCustomWidgets: () => ({ [WIDGET]: graphEditor }),
    beforeRegisterNodeDef(nodeType, nodeData) {
        // The editor explains itself; a tooltip over all of it would be in the way.
        const input = nodeData.name === "CausalGraphBuilder" && nodeData.input.optional?.editor;
        if (input) delete input[1].tooltip;
    },
});
