// Hands on the stage: mouse, pen, fingers and keys become strokes, polygons, and moves of the view.

import { Polygon, Stroke } from "./strokes.js";

const tapPx = 10; // a finger or mouse that moved less has tapped or clicked
const doubleTapMs = 300;
// A stroke of more points, or of more image pixels, is sent in pieces: the server takes a second or two for one.
const maxPoints = 4000, maxLength = 400_000;

export class Input {
  /**
   * @param {object} stage
   * @param {object} tool  `name`, `size` (diameter in image pixels), `softness` (0 to 1), `erase`
   * @param {object} actions  `paint(shape, pending)`, `bucket(x, y, erase)`, `started()`
   */
  constructor(stage, tool, actions) {
    Object.assign(this, { stage, tool, actions });
    this.place = stage.place;
    this.pointers = new Map();
    this.gesture = null;
    this.polygon = null; // pending entry of the polygon in hand
    this.last = null; // where the last stroke ended: shift draws a line from there
    this.holdsSpace = false;
    this.penSeen = false;
    this.lastTap = null;
    this.keyboard = null; // [x, y] of the image, once the arrow keys were used
    this.listen();
  }

  listen() {
    const on = (name, handler, options) => this.place.addEventListener(name, handler, options);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", (event) => this.up(event));
    on("pointerleave", () => { if (!this.gesture) byId("cursor").hidden = true; });
    on("contextmenu", (event) => event.preventDefault());
    on("dblclick", (event) => this.doubleClick(event));
    on("wheel", (event) => this.wheel(event), { passive: false });
    addEventListener("blur", () => { this.holdsSpace = false; this.place.classList.remove("grab"); });
  }

  reset() {
    this.cancel();
    this.last = this.keyboard = null;
    this.pointers.clear();
    byId("keyboard-cursor").hidden = byId("cursor").hidden = true;
  }

  /** Drop what is in hand. @returns {boolean} whether there was anything */
  cancel() {
    const hadSome = Boolean(this.polygon || this.gesture?.pending);
    if (this.polygon) this.dropPending(this.polygon);
    if (this.gesture?.pending) this.dropPending(this.gesture.pending);
    if (this.keyStroke) this.dropPending(this.keyStroke);
    this.polygon = this.gesture = this.keyStroke = null;
    return hadSome;
  }

  dropPending(pending) {
    this.stage.pending = this.stage.pending.filter((one) => one !== pending);
    this.stage.redraw("marks");
  }

  // ---- pointers

  at(event) {
    const box = this.place.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  radius(event) {
    // A pen that reports no pressure reports 0.5 or 0.
    const pressure = event.pointerType === "pen" && event.pressure > 0 ? 0.15 + 0.85 * event.pressure : 1;
    return Math.max((this.tool.size / 2) * pressure, 0.3);
  }

  down(event) {
    if (!this.stage.image || event.target.closest(".divider")) return;
    event.preventDefault();
    this.place.focus({ preventScroll: true });
    this.place.setPointerCapture(event.pointerId);
    const [x, y] = this.at(event);
    this.pointers.set(event.pointerId, { x, y });
    byId("keyboard-cursor").hidden = true;
    if (event.pointerType === "pen") this.penSeen = true;
    if (event.pointerType === "touch" && this.pointers.size > 1) return this.startPinch();
    if (this.gesture) return;
    const isPan =
      this.holdsSpace || event.button === 1 || this.tool.name === "move" || (event.pointerType === "touch" && this.penSeen);
    if (isPan) {
      this.gesture = { kind: "pan", id: event.pointerId, x, y, startX: x, startY: y, touch: event.pointerType === "touch" };
      this.place.classList.add("grabbing");
      return;
    }
    if (![0, 2, 5].includes(event.button)) return;
    const erase = this.tool.erase !== (event.button === 2 || event.button === 5);
    const [imageX, imageY] = this.stage.view.toImage(x, y);
    this.actions.started();
    if (this.tool.name === "brush") this.startStroke(event, imageX, imageY, erase);
    else if (this.tool.name === "lasso") this.startLasso(event, imageX, imageY, erase);
    else this.gesture = { kind: "click", id: event.pointerId, startX: x, startY: y, erase, touch: event.pointerType === "touch" };
  }

  startStroke(event, x, y, erase) {
    const shape = new Stroke({ softness: this.tool.softness, erase });
    const pending = this.addPending(shape);
    const [startX, startY] = this.at(event);
    this.gesture = { kind: "stroke", id: event.pointerId, shape, pending, startX, startY, startTime: event.timeStamp, touch: event.pointerType === "touch" };
    const r = this.radius(event);
    if (event.shiftKey && this.last) this.stage.redrawMarks(shape.add(...this.last, r));
    this.stage.redrawMarks(shape.add(x, y, r));
  }

  startLasso(event, x, y, erase) {
    const shape = new Polygon({ erase });
    shape.add(x, y);
    const [startX, startY] = this.at(event);
    this.gesture = { kind: "lasso", id: event.pointerId, shape, pending: this.addPending(shape), startX, startY, startTime: event.timeStamp, touch: event.pointerType === "touch" };
  }

  addPending(shape) {
    const pending = { shape };
    this.stage.pending.push(pending);
    this.stage.showMarks();
    return pending;
  }

  move(event) {
    this.moveCursor(event);
    const pointer = this.pointers.get(event.pointerId);
    if (pointer) [pointer.x, pointer.y] = this.at(event);
    const gesture = this.gesture;
    if (!gesture) {
      if (this.polygon && this.tool.name === "polygon") this.polygonMoves(event);
      return;
    }
    if (gesture.kind === "pinch") return this.pinch();
    if (event.pointerId !== gesture.id) return;
    if (gesture.kind === "pan") {
      const [x, y] = this.at(event);
      this.stage.view.panBy(x - gesture.x, y - gesture.y);
      [gesture.x, gesture.y] = [x, y];
    } else if (gesture.kind === "stroke" || gesture.kind === "lasso") {
      const parts = event.getCoalescedEvents?.() || [];
      for (const part of parts.length ? parts : [event]) this.addPoint(part);
    }
  }

  addPoint(event) {
    const { kind, shape } = this.gesture;
    const [x, y] = this.stage.view.toImage(...this.at(event));
    const before = shape.points[shape.points.length - 1];
    const distance = Math.hypot(x - before[0], y - before[1]) * this.stage.view.scale;
    if (kind === "lasso") {
      if (distance < 1.5) return;
      shape.add(x, y);
      this.stage.redrawMarks(shape.box);
      return;
    }
    const r = this.radius(event);
    if (distance < 0.5 && Math.abs(r - before[2]) < 0.5) return;
    this.stage.redrawMarks(shape.add(x, y, r));
    if (shape.points.length >= maxPoints || shape.length >= maxLength) this.splitStroke();
  }

  /** Send what there is of a very long stroke, and go on from its end. */
  splitStroke() {
    const { shape, pending } = this.gesture;
    this.actions.paint(shape, pending);
    const next = new Stroke({ softness: shape.softness, erase: shape.erase });
    next.add(...shape.points[shape.points.length - 1]);
    Object.assign(this.gesture, { shape: next, pending: this.addPending(next) });
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    const gesture = this.gesture;
    if (!gesture) return;
    if (gesture.kind === "pinch") {
      if (!this.pointers.size) this.gesture = null;
      else this.startPinch();
      return;
    }
    if (event.pointerId !== gesture.id) return;
    this.place.classList.remove("grabbing");
    const [x, y] = this.at(event);
    const isTap = Math.hypot(x - gesture.startX, y - gesture.startY) < tapPx;
    if (gesture.touch && isTap && event.type === "pointerup" && this.isSecondTap(x, y, event.timeStamp)) {
      if (gesture.pending) this.dropPending(gesture.pending);
      this.gesture = null;
      return this.toggleZoom(x, y);
    }
    const finish = () => this.finish(gesture, event, x, y, isTap);
    this.gesture = gesture.touch && isTap ? null : gesture;
    if (!this.gesture && gesture.kind !== "pan") {
      // The dab of a finger waits: it may be the first tap of two.
      this.lastTap = { x, y, time: event.timeStamp, timer: setTimeout(finish, doubleTapMs), pending: gesture.pending };
      return;
    }
    if (gesture.touch && isTap) this.lastTap = { x, y, time: event.timeStamp };
    this.gesture = null;
    finish();
  }

  isSecondTap(x, y, time) {
    const first = this.lastTap;
    this.lastTap = null;
    if (!first || time - first.time > doubleTapMs || Math.hypot(x - first.x, y - first.y) > 30) return false;
    clearTimeout(first.timer);
    if (first.pending) this.dropPending(first.pending);
    return true;
  }

  finish(gesture, event, x, y, isTap) {
    if (gesture.kind === "stroke") {
      // A stroke that the system interrupts keeps what is painted; nothing is lost.
      this.last = gesture.shape.points[gesture.shape.points.length - 1].slice(0, 2);
      this.actions.paint(gesture.shape, gesture.pending);
    } else if (gesture.kind === "lasso") {
      if (gesture.shape.points.length < 3) this.dropPending(gesture.pending);
      else this.actions.paint(gesture.shape, gesture.pending);
    } else if (gesture.kind === "click" && isTap && event.type === "pointerup") {
      const [imageX, imageY] = this.stage.view.toImage(x, y);
      if (this.tool.name === "bucket") this.actions.bucket(imageX, imageY, gesture.erase);
      else this.polygonPoint(imageX, imageY, gesture.erase);
    }
  }

  // ---- polygon

  polygonPoint(x, y, erase) {
    if (!this.polygon) {
      const shape = new Polygon({ erase });
      shape.isOpen = true;
      this.polygon = this.addPending(shape);
    }
    const { shape } = this.polygon;
    const [first] = shape.points;
    if (shape.points.length > 2 && Math.hypot(x - first[0], y - first[1]) * this.stage.view.scale < 12) return this.closePolygon();
    shape.tip = null;
    shape.add(x, y);
    this.stage.redraw("marks");
  }

  polygonMoves(event) {
    this.polygon.shape.tip = this.stage.view.toImage(...this.at(event));
    this.stage.redraw("marks");
  }

  /** @returns {boolean} whether there was one to close */
  closePolygon() {
    const pending = this.polygon;
    if (!pending) return false;
    this.polygon = null;
    const { shape } = pending;
    shape.isOpen = false;
    shape.tip = null;
    if (shape.points.length < 3) this.dropPending(pending);
    else {
      this.stage.redraw("marks");
      this.actions.paint(shape, pending);
    }
    return true;
  }

  /** Take the last corner back. @returns {boolean} whether there was one */
  polygonBack() {
    if (!this.polygon) return false;
    this.polygon.shape.points.pop();
    if (!this.polygon.shape.points.length) this.cancel();
    this.stage.redraw("marks");
    return true;
  }

  doubleClick(event) {
    if (this.tool.name === "polygon") {
      this.polygon?.shape.points.pop(); // the second click of the two
      this.closePolygon();
    } else if (this.tool.name === "move" && event.pointerType !== "touch") this.toggleZoom(...this.at(event));
  }

  // ---- zoom

  toggleZoom(x, y) {
    const { view } = this.stage;
    if (view.isFit) view.zoomTo(Math.max(1 / devicePixelRatio, view.fitScale * 2.5), x, y);
    else view.fit();
  }

  startPinch() {
    // A second finger: the first did not mean to paint.
    if (this.gesture?.pending) this.dropPending(this.gesture.pending);
    this.place.classList.remove("grabbing");
    this.gesture = { kind: "pinch", ...this.spread() };
  }

  spread() {
    const fingers = [...this.pointers.values()].slice(0, 2);
    const [a, b = a] = fingers;
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.hypot(a.x - b.x, a.y - b.y) };
  }

  pinch() {
    const before = this.gesture, now = this.spread();
    const { view } = this.stage;
    view.panBy(now.x - before.x, now.y - before.y);
    if (before.distance > 0 && now.distance > 0) view.zoomBy(now.distance / before.distance, now.x, now.y);
    Object.assign(before, now);
  }

  wheel(event) {
    if (!this.stage.image) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : event.deltaMode === WheelEvent.DOM_DELTA_PAGE ? 400 : 1;
    const [right, down] = [event.deltaX * lines, event.deltaY * lines];
    if (event.shiftKey || Math.abs(right) > Math.abs(down)) return this.stage.view.panBy(-(right || down), 0);
    // Trackpads report a pinch as a wheel with ctrl, in small steps.
    const strength = event.ctrlKey ? 0.01 : 0.0018;
    this.stage.view.zoomBy(Math.exp(-Math.max(Math.min(down, 240), -240) * strength), ...this.at(event));
  }

  // ---- the ring that shows the brush

  moveCursor(event) {
    const cursor = byId("cursor");
    const isShown = this.tool.name === "brush" && event.pointerType !== "touch" && !this.holdsSpace && !event.target.closest?.(".divider");
    cursor.hidden = !isShown;
    if (!isShown) return;
    this.cursorAt = this.at(event);
    this.drawCursor();
  }

  drawCursor() {
    if (!this.cursorAt) return;
    const cursor = byId("cursor"), diameter = Math.max(this.tool.size * this.stage.view.scale, 3);
    cursor.style.width = cursor.style.height = `${diameter}px`;
    cursor.style.transform = `translate(${this.cursorAt[0] - diameter / 2}px, ${this.cursorAt[1] - diameter / 2}px)`;
    this.drawKeyboardCursor();
  }

  // ---- keys on the stage

  /** @returns {boolean} whether the key was for the brush */
  press(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (arrow) this.moveKeyboard(arrow, event.shiftKey);
    else if (event.key === "Enter") this.pressEnter(event);
    else if (event.key === "Backspace") return this.polygonBack();
    else return false;
    return true;
  }

  moveKeyboard([right, down], isFar) {
    const { view, image } = this.stage;
    if (!this.keyboard) this.keyboard = view.toImage(view.stage.width / 2, view.stage.height / 2);
    else {
      const step = (isFar ? 60 : 8) / view.scale;
      const clamp = (value, size) => Math.min(Math.max(value, 0), size);
      this.keyboard = [clamp(this.keyboard[0] + right * step, image.width), clamp(this.keyboard[1] + down * step, image.height)];
    }
    view.reveal(...this.keyboard);
    if (this.keyStroke) {
      const { shape } = this.keyStroke;
      const box = shape instanceof Stroke ? shape.add(...this.keyboard, this.tool.size / 2) : (shape.add(...this.keyboard), shape.box);
      this.stage.redrawMarks(box);
    }
    this.drawKeyboardCursor();
  }

  drawKeyboardCursor() {
    const cursor = byId("keyboard-cursor");
    cursor.hidden = !this.keyboard || document.activeElement !== this.place;
    if (cursor.hidden) return;
    const [x, y] = this.stage.view.toStage(...this.keyboard);
    const diameter = this.tool.name === "brush" ? Math.max(this.tool.size * this.stage.view.scale, 3) : 3;
    cursor.style.setProperty("--size", `${diameter}px`);
    cursor.style.transform = `translate(${x}px, ${y}px)`;
    cursor.classList.toggle("down", Boolean(this.keyStroke));
  }

  pressEnter(event) {
    if (!this.keyboard) {
      if (!this.closePolygon()) this.moveKeyboard([0, 0], false);
      return;
    }
    const [x, y] = this.keyboard, { erase } = this.tool;
    if (this.tool.name === "polygon") {
      if (event.shiftKey) this.closePolygon();
      else this.polygonPoint(x, y, erase);
    } else if (this.tool.name === "bucket") this.actions.bucket(x, y, erase);
    else if (this.keyStroke) {
      const pending = this.keyStroke;
      this.keyStroke = null;
      if (pending.shape instanceof Polygon && pending.shape.points.length < 3) this.dropPending(pending);
      else this.actions.paint(pending.shape, pending);
      this.last = [x, y];
    } else if (this.tool.name === "brush" || this.tool.name === "lasso") {
      this.actions.started();
      const shape = this.tool.name === "brush" ? new Stroke({ softness: this.tool.softness, erase }) : new Polygon({ erase });
      this.keyStroke = this.addPending(shape);
      shape.add(x, y, this.tool.size / 2);
      this.stage.redrawMarks(shape.box);
    }
    this.drawKeyboardCursor();
  }

  holdSpace(isHeld) {
    this.holdsSpace = isHeld;
    this.place.classList.toggle("grab", isHeld);
    if (isHeld) byId("cursor").hidden = true;
  }
}
