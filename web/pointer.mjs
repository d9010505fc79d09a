/**
 * The mouse, pen or finger on the picture: drag a card, draw a line from a handle, pan, click; and its wheel.
 */

const STILL = 4; // a press that moves less is a click

/**
 * Listen to the pointer.
 *
 * @param stage the picture, of stage.mjs
 * @param does what follows: press(target, name), click(name) (true if that was all), hover(at), grabbed(name) (gives
 *     the place), drop(name, at), linking(kind, from), over(name), draw(to), values(name), rename(), add(at),
 *     clear(), cancel(), panned()
 * @param page {middle(event)}: what belongs to the canvas around the editor
 */
export function listenToPointer(stage, does, page) {
    const { element } = stage;
    let press = null;

    element.addEventListener("pointerdown", (event) => {
        if (event.button === 1) return page.middle(event);
        if (event.button !== 0 || press || event.target.closest(".cf-popup")) return null;
        const card = event.target.closest(".cf-card");
        const name = card?.dataset.name ?? null;
        const { at, inStage } = stage.point(event);
        press = { id: event.pointerId, from: inStage, begun: at, name, target: event.target, view: stage.view() };
        press.kind = event.target.dataset.link ?? null;
        does.press(event.target, name);
        return null;
    });

    // No text is marked, and the focus goes where we put it.
    element.addEventListener("mousedown", (event) => event.target.closest(".cf-popup") || event.preventDefault());

    element.addEventListener("pointermove", (event) => {
        if (event.buttons & 4) return page.middle(event);
        if (!press) return does.hover(stage.point(event).at);
        if (event.pointerId !== press.id) return null;
        const { at, inStage } = stage.point(event);
        const shift = [inStage[0] - press.from[0], inStage[1] - press.from[1]];
        if (!press.moving) {
            if (Math.hypot(...shift) < STILL) return null;
            press.moving = true;
            element.setPointerCapture(press.id);
            element.dataset.dragging = press.kind ?? (press.name ? "card" : "view");
            if (press.name && !press.kind) press.card = does.grabbed(press.name);
            if (press.kind) does.linking(press.kind, press.name);
        }
        press.last = { at, inStage, shift, x: event.clientX, y: event.clientY };
        press.frame ??= requestAnimationFrame(follow);
        return null;
    });

    /** What has moved is drawn once a frame, however many events came in between. */
    function follow() {
        if (!press) return;
        press.frame = null;
        const { at, shift, x, y } = press.last;
        if (press.kind) {
            stage.rubber(press.name, at);
            does.over(nameAt(x, y));
        } else if (press.name) {
            stage.place(press.name, press.card.map((c, k) => c + at[k] - press.begun[k]));
        } else {
            stage.see({ ...press.view, x: press.view.x + shift[0], y: press.view.y + shift[1] });
            does.panned();
        }
    }

    function nameAt(x, y) {
        const root = element.getRootNode();
        return root.elementFromPoint(x, y)?.closest?.(".cf-card")?.dataset.name ?? null;
    }

    element.addEventListener("pointerup", (event) => {
        if (event.button === 1) return page.middle(event);
        if (!press || event.pointerId !== press.id) return null;
        const { name, kind, moving, target, begun, card } = press;
        const { at } = stage.point(event);
        end();
        if (moving && kind) does.draw(nameAt(event.clientX, event.clientY));
        else if (moving && name) does.drop(name, card.map((c, k) => c + at[k] - begun[k]));
        else if (!moving && !does.click(name)) {
            if (target.closest(".cf-value")) does.values(name);
            else if (!name && !target.closest(".cf-hit")) does.clear();
        }
        return null;
    });

    element.addEventListener("pointercancel", () => {
        const moved = press?.moving && press.name;
        end();
        if (moved) does.cancel();
    });

    function end() {
        if (press?.moving) element.releasePointerCapture(press.id);
        cancelAnimationFrame(press?.frame);
        delete element.dataset.dragging;
        stage.rubber(null);
        press = null;
    }

    element.addEventListener("dblclick", (event) => {
        if (event.target.closest(".cf-popup, .cf-value, .cf-hit")) return;
        const card = event.target.closest(".cf-card");
        if (card) does.rename(card.dataset.name);
        else does.add(stage.point(event).at);
    });

    element.addEventListener("click", (event) => {
        // A click without a press comes from a keyboard or a screen reader.
        const value = event.target.closest(".cf-value");
        if (value && event.detail === 0) does.values(value.closest(".cf-card").dataset.name);
    });
}

/**
 * Zoom the picture with the wheel while the editor has the focus; else, and for gestures, the wheel is the canvas's.
 *
 * @param does focused() says whether the editor has the focus, zoomed() follows
 */
export function listenToWheel(element, stage, does, page) {
    element.addEventListener("wheel", (event) => {
        if (event.target.closest(".cf-popup")) return event.stopPropagation();
        const gesture = event.ctrlKey || event.metaKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
        if (gesture || !does.focused() || !stage.element.contains(event.target)) return page.wheel(event);
        event.preventDefault();
        event.stopPropagation();
        const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
        stage.zoomBy(Math.exp(-event.deltaY * lines * 0.0016), stage.point(event).inStage);
        return does.zoomed();
    }, { passive: false });
}
