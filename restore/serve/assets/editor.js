// The editor of one photograph: ties the stage, the tools, the mask and the server's jobs to the buttons.

import { Found } from "./found.js";
import { Input } from "./input.js";
import { Mask } from "./mask.js";
import { ask, complain, offline, say } from "./messages.js";
import { Recipe } from "./recipe.js";
import { bitmap, finished, get, post } from "./server.js";
import { Stage } from "./stage.js";
import { Work } from "./work.js";

const smallPixels = 1_000_000; // smaller photographs are repaired as a whole as fast as their visible part
const sizes = { smallest: 1, largest: 2000 };
const stored = (name, otherwise) => {
  try { return JSON.parse(localStorage.getItem(`restore-editor-${name}`)) ?? otherwise; } catch { return otherwise; }
};
const store = (name, value) => {
  try { localStorage.setItem(`restore-editor-${name}`, JSON.stringify(value)); } catch { /* private windows may refuse */ }
};

export class Editor {
  constructor(session) {
    this.session = session;
    this.file = null;
    this.shownOriginal = null; // what is shown again when the key for the original is let go
    this.resultOf = null; // revision of the mask that the shown repair was made with
    this.recipeSent = Promise.resolve();
    this.onStep = () => {};
    this.tool = { name: "brush", size: null, softness: stored("softness", 0), erase: false };
    this.stage = new Stage(byId("stage"));
    this.stage.color = stored("color", "#ff2d55");
    this.mask = new Mask(this.stage, complain, () => this.drawState());
    this.input = new Input(this.stage, this.tool, {
      started: () => this.found.commit(),
      paint: (shape, pending) => this.paint(shape, pending),
      bucket: (x, y, erase) => this.found.bucket(x, y, erase),
    });
    this.isOffline = false; // the server reports nothing
    this.isStale = false; // the file has changed while something else was in work
    this.work = new Work(() => {
      this.drawState();
      if (this.isStale && !this.work.isBusy) this.refresh();
    });
    this.found = new Found(this);
    this.divider = createDivider(byId("divider"), byId("stage"), (at) => {
      this.stage.divided = at;
      this.stage.redraw("ground");
    });
    this.recipe = new Recipe(session.recipe, byId("recipe"), byId("recipe-of-all"), (values) => this.sendRecipe(values));
    this.stage.onView = () => this.viewChanged();
    this.stage.onMarks = () => this.drawState();
    this.bind();
    this.setTool("brush");
    this.setSoftness(this.tool.softness);
    this.setOpacity(stored("opacity", 55));
    byId("color").value = this.stage.color;
  }

  bind() {
    const click = (id, action) => byId(id).addEventListener("click", action);
    const input = (id, action) => byId(id).addEventListener("input", (event) => action(Number(event.target.value)));
    for (const button of document.querySelectorAll("#toolbar [data-tool]")) button.addEventListener("click", () => this.setTool(button.dataset.tool));
    for (const button of document.querySelectorAll("[data-side]")) button.addEventListener("click", () => this.show(button.dataset.side));
    click("erase", () => this.setErase(!this.tool.erase));
    click("marks-shown", () => this.setMarksShown(!this.stage.showsMarks));
    click("undo", () => this.undo());
    click("redo", () => this.redo());
    click("find", () => this.found.find());
    click("repair", () => this.repair());
    click("save", () => this.save());
    click("options", () => this.togglePanel());
    click("invert", () => this.mask.apply("invert"));
    click("clear", () => this.mask.apply("clear"));
    click("grow", () => this.grow(1));
    click("shrink", () => this.grow(-1));
    click("load-mask", () => byId("mask-file").click());
    click("to-ground", () => this.toGround());
    click("another-fill", () => this.anotherFill());
    click("recipe-reset", () => { this.recipe.set({}); this.sendRecipe(this.recipe.values); });
    click("zoom-in", () => this.stage.view.zoomBy(1.5));
    click("zoom-out", () => this.stage.view.zoomBy(1 / 1.5));
    click("zoom-value", () => this.stage.view.zoomToPixels());
    click("zoom-fit", () => this.stage.view.fit());
    input("size", (value) => this.setSize(sizes.smallest * (sizes.largest / sizes.smallest) ** (value / 100)));
    input("softness", (value) => this.setSoftness(value / 100));
    input("opacity", (value) => this.setOpacity(value));
    byId("color").addEventListener("input", (event) => {
      this.stage.color = event.target.value;
      store("color", event.target.value);
      this.stage.redraw("marks");
    });
    byId("mask-file").addEventListener("change", (event) => this.loadMask(event.target));
    byId("divider").addEventListener("pointerdown", (event) => {
      byId("divider").setPointerCapture(event.pointerId);
      event.stopPropagation();
    });
    byId("divider").addEventListener("pointermove", (event) => { if (event.buttons) this.divider.follow(event); });
    byId("stage").addEventListener("blur", () => { byId("keyboard-cursor").hidden = true; });
    // After a click, keys go to the stage again: Space moves the photograph instead of pressing the button once more.
    byId("editor").addEventListener("click", (event) => {
      const isPointer = event.detail > 0 && event.target.closest("button, input[type=range], input[type=checkbox]");
      if (isPointer && !document.querySelector("dialog[open]")) byId("stage").focus({ preventScroll: true });
    });
  }

  // ---- opening and closing

  async open(id, known) {
    this.close();
    this.opening = id;
    document.title = `${known.name} · restore`;
    byId("title").firstChild.textContent = known.name;
    byId("subtitle").textContent = "";
    byId("saved").textContent = "";
    byId("stage").focus({ preventScroll: true });
    if (known.width) {
      byId("placeholder").setAttribute("src", `/page/files/${id}/thumbnail?v=${known.revision}`);
      byId("placeholder").hidden = false;
    }
    try {
      const file = await this.prepared(id);
      if (!file) return;
      this.prepare(file);
    } catch (error) {
      if (this.opening !== id) return;
      this.tellPreparing(error.hint ? `${error.message} (${error.hint})` : error.message);
    }
  }

  /** What the server knows of a file, once it has been decoded; null if another one was opened meanwhile. */
  async prepared(id) {
    for (;;) {
      const file = await get(`/page/files/${id}`);
      if (this.opening !== id) return null;
      if (file.state !== "preparing") return file;
      this.tellPreparing("Opening…");
      await finished(file.job, (job) => {
        if (this.opening === id && job.progress) this.tellPreparing(`Opening… ${Math.round(100 * job.progress)} %`);
      });
      if (this.opening !== id) return null;
    }
  }

  tellPreparing(text) {
    byId("preparing").replaceChildren(element("span", {}, text));
    byId("preparing").hidden = !text;
    if (!text) byId("placeholder").hidden = true;
  }

  prepare(file) {
    this.tellPreparing("");
    this.file = file;
    this.stage.open(file, this.session.tile);
    this.mask.reset(file);
    this.setResult(file.result);
    this.stage.layers.original.renew(file.original.revision);
    this.stage.shown = "original";
    this.stage.showsMarks = true;
    this.found.facts = null;
    this.found.set(file.found);
    this.found.show(this.found.isUndecided(file));
    this.recipe.set(file.recipe || {});
    if (this.tool.size === null) this.setSize(Math.max(Math.round(Math.max(file.width, file.height) / 45), 4));
    byId("save-mask").href = `/page/files/${file.id}/mask.png`;
    byId("save-mask").download = `${file.name.split("/").pop()}.mask.png`;
    if (file.state === "saved") byId("saved").textContent = `Saved to ${file.saved}.`;
    this.drawState();
    this.stage.redraw("ground", "found", "marks");
  }

  close() {
    this.input.reset();
    this.stage.close();
    this.mask.reset(null);
    this.file = this.opening = null;
    this.stage.showsFound = false;
    this.work.stop();
    this.togglePanel(false);
    this.tellPreparing("");
    this.shownOriginal = null;
    byId("found-panel").hidden = true;
    this.drawState();
  }

  fileChanged(file) {
    if (!this.file || String(file.id) !== String(this.file.id)) return;
    const before = this.file;
    this.file = { ...before, ...file };
    this.drawState();
    // Something happened that this page did not do: the recipe was applied to all, or another window is open.
    const isNew = ["revision", "state", "found_fraction", "saved"].some((name) => file[name] !== before[name]);
    if (!isNew) return;
    if (this.work.isBusy) this.isStale = true;
    else this.refresh();
  }

  /** Ask for everything about the file again. */
  async refresh() {
    const id = this.file?.id;
    if (id === undefined) return;
    this.isStale = false;
    try {
      const file = await get(`/page/files/${id}`);
      if (this.file?.id !== id) return;
      if (file.state === "preparing" || file.original.stamp !== this.file.original.stamp) return await this.reopen();
      this.file = file;
      this.stage.layers.original.renew(file.original.revision);
      if (!this.mask.waiting) this.mask.synchronize(file.mask);
      this.setResult(file.result);
      this.found.set(file.found);
      this.drawState();
      this.stage.redraw("ground", "found", "marks");
    } catch (error) { complain(error); }
  }

  /** The photograph has changed on the disk: show it as it is now. */
  async reopen() {
    const before = this.file, shown = this.stage.image, hadMask = !this.mask.state.empty;
    await this.open(String(before.id), before);
    const now = this.file;
    if (now?.id !== before.id || now.original.stamp === before.original.stamp) return;
    const isSame = now.width === shown.width && now.height === shown.height;
    const mask = !hadMask ? "" : isSame ? " Your mask is kept." : " Its size has changed, so the mask is gone.";
    say(`The file has changed on the disk. The page shows the new version.${mask}`, 15);
  }

  // ---- tools

  setTool(name) {
    if (name !== this.tool.name) this.input.cancel();
    this.tool.name = name;
    byId("stage").dataset.tool = name;
    if (name !== "brush") byId("cursor").hidden = true;
    for (const button of document.querySelectorAll("#toolbar [data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
    this.input.drawKeyboardCursor();
  }

  setErase(erase) {
    this.tool.erase = erase;
    byId("erase").setAttribute("aria-pressed", erase);
    byId("stage").classList.toggle("erasing", erase);
  }

  setSize(size) {
    const { smallest, largest } = sizes;
    this.tool.size = Math.min(Math.max(size, smallest), largest);
    byId("size").value = 100 * Math.log(this.tool.size / smallest) / Math.log(largest / smallest);
    byId("size-value").textContent = `${this.tool.size < 10 ? this.tool.size.toFixed(1) : Math.round(this.tool.size)} px`;
    byId("size").setAttribute("aria-valuetext", byId("size-value").textContent);
    this.input.drawCursor();
  }

  scaleBrush(factor) {
    this.setSize(this.tool.size * factor);
  }

  setSoftness(softness) {
    this.tool.softness = Math.round(Math.min(Math.max(softness, 0), 1) * 100) / 100;
    byId("softness").value = this.tool.softness * 100;
    byId("softness-value").textContent = `${Math.round(this.tool.softness * 100)} %`;
    store("softness", this.tool.softness);
  }

  setOpacity(percent) {
    byId("opacity").value = percent;
    byId("opacity-value").textContent = `${percent} %`;
    byId("marks").style.opacity = percent / 100;
    store("opacity", percent);
  }

  setMarksShown(shows) {
    this.stage.showsMarks = shows;
    this.stage.redraw("marks");
    this.drawState();
  }

  togglePanel(isOpen = !document.body.classList.contains("panel-open")) {
    document.body.classList.toggle("panel-open", isOpen);
    byId("options").setAttribute("aria-expanded", isOpen);
  }

  escape() {
    if (document.body.classList.contains("panel-open")) this.togglePanel(false);
    else if (!this.input.cancel()) this.stage.view.fit();
  }

  // ---- the mask

  paint(shape, pending) {
    const round = (value) => Math.round(value * 100) / 100;
    const points = shape.points.map((point) => point.map(round));
    if (shape.softness === undefined) this.mask.apply("polygon", { points, erase: shape.erase }, pending);
    else this.mask.apply("stroke", { points, softness: shape.softness, erase: shape.erase }, pending);
  }

  grow(sign) {
    const px = Math.min(Math.max(Math.round(Number(byId("grow-by").value)) || 1, 1), 200);
    this.mask.apply("grow", { px: sign * px });
  }

  async loadMask(input) {
    const [file] = input.files;
    input.value = "";
    if (file && (await this.mask.load(file))) this.stage.showMarks();
  }

  async undo() {
    if (!this.file || this.input.cancel()) return;
    if (this.mask.state.undo || this.mask.waiting) this.afterStep(await this.mask.apply("undo"));
  }

  async redo() {
    if (this.file && (this.mask.state.redo || this.mask.waiting)) this.afterStep(await this.mask.apply("redo"));
  }

  /** The step may have been one that changed the original. */
  afterStep(answer) {
    if (answer?.kind !== "ground") return;
    this.stage.shown = "original";
    this.refresh();
  }

  // ---- repairing

  async repair() {
    if (!this.file || this.work.isBusy) return;
    const id = this.file.id;
    await this.found.commit();
    await Promise.all([this.mask.settled(), this.recipeSent]);
    if (this.file?.id !== id || this.work.isBusy) return;
    const { clean_up: cleansUp, correct_fading: correctsFading } = this.recipe.values;
    if (this.mask.state.empty && !cleansUp && !correctsFading) return say("Nothing is masked yet. Find damage, or paint over it.");
    const started = performance.now();
    const preview = await this.preview(id);
    if (this.file?.id !== id || preview?.state === "cancelled") return;
    const of = this.mask.state.revision;
    const job = await this.work.run("Repairing the photograph", () => post(`/page/files/${id}/repair`, { recipe: this.recipe.values }));
    if (this.file?.id !== id) return;
    if (job?.state !== "done") {
      this.stage.patch = null;
      return this.show(this.stage.shown);
    }
    await this.refresh();
    if (this.mask.state.revision === of) this.showRepaired();
    say([`Repaired in ${((performance.now() - started) / 1000).toFixed(1)} s.`, ...(job.result.notes || [])].join(" "));
    return job.result;
  }

  /** Repair again with other random choices. */
  async anotherFill() {
    const { values } = this.recipe;
    if (!this.file?.result || this.work.isBusy) return;
    this.recipe.set({ ...values, seed: values.seed + 1 });
    this.sendRecipe(this.recipe.values);
    const result = await this.repair();
    if (result?.is_same) say("This fill looks like the previous one: thin holes are always filled the same way.");
  }

  /** Fill what is in the stage first. Where nothing of that is masked, there is nothing to see yet. */
  async preview(id) {
    const box = this.stage.view.box;
    const isSmall = this.file.width * this.file.height < smallPixels;
    if (isSmall || this.mask.state.empty || box[2] <= box[0] || box[3] <= box[1]) return null;
    let started;
    try {
      started = await post(`/page/files/${id}/preview`, { box });
    } catch (error) {
      if (error.status === 0) complain(error);
      return null;
    }
    const preview = await this.work.run("Repairing the visible part", () => started);
    if (preview?.result?.url) await this.showPatch(preview.result, id).catch(complain);
    return preview;
  }

  async showPatch({ url, x, y, width, height }, id) {
    const { image } = await bitmap(url);
    if (!image || this.file?.id !== id) return;
    this.stage.patch = { image, x, y, width, height };
    this.showRepaired();
  }

  showRepaired() {
    if (this.stage.shown === "original") this.stage.shown = "repaired";
    this.stage.showsMarks = false;
    this.drawState();
    this.stage.redraw("ground", "marks");
  }

  setResult(result) {
    this.file.result = result;
    this.resultOf = result?.current ? this.mask.state.revision : null;
    this.stage.hasResult = Boolean(result);
    if (result && result.revision !== this.stage.layers.repaired.base) {
      this.stage.layers.repaired.renew(result.revision);
      this.stage.patch = null;
    }
    if (!result) this.stage.patch = null;
  }

  sendRecipe(values) {
    const id = this.file?.id;
    if (id === undefined) return;
    this.drawState();
    this.recipeSent = this.recipeSent.then(() => post(`/page/files/${id}/recipe`, values, "PUT")).catch(complain);
  }

  async toGround() {
    if (!this.file?.result || this.work.isBusy) return;
    const answer = await this.mask.ground();
    if (!answer) return;
    this.stage.shown = "original";
    await this.refresh();
    this.stage.showMarks();
    say("The repair is the new original.");
  }

  get canSave() {
    return Boolean(this.file?.result || this.file?.original?.is_repair);
  }

  async save() {
    if (!this.file || this.work.isBusy) return;
    if (!this.canSave) return say("Nothing is repaired yet. Press “Repair” first.");
    const address = `/page/files/${this.file.id}/save`;
    try {
      await this.mask.settled();
      this.tellSaved(await this.saved(address));
    } catch (error) { complain(error); }
  }

  async saved(address) {
    try {
      return await post(address, { overwrite: false });
    } catch (error) {
      if (error.status !== 409) throw error;
      if (!(await ask("Replace the file?", error.message, "Replace"))) return null;
      return post(address, { overwrite: true });
    }
  }

  tellSaved(answer) {
    if (!answer) return;
    const notes = (answer.notes || []).map((note) => ` ${note}`).join("");
    byId("saved").textContent = `Saved to ${answer.path}.${notes}`;
    say(byId("saved").textContent, 12);
  }

  // ---- comparing

  show(side) {
    if (!this.file) return;
    const canCompare = Boolean(this.file.result || this.stage.patch);
    this.stage.shown = canCompare ? side : "original";
    if (canCompare && side !== "original") this.stage.showsMarks = false;
    this.drawState();
    this.stage.redraw("ground", "marks");
  }

  /** Show what the marks lie on. */
  showOriginalSide() {
    this.stage.shown = "original";
    this.stage.redraw("ground");
    this.stage.showMarks();
    this.drawState();
  }

  /** While a key is held: the original without any marks. */
  showOriginal(isHeld) {
    if (!this.file) return;
    if (isHeld) {
      this.shownOriginal ??= { shown: this.stage.shown, showsMarks: this.stage.showsMarks, showsFound: this.stage.showsFound };
      Object.assign(this.stage, { shown: "original", showsMarks: false, showsFound: false });
    } else {
      Object.assign(this.stage, this.shownOriginal);
      this.shownOriginal = null;
    }
    this.drawState();
    this.stage.redraw("ground", "found", "marks");
  }

  // ---- what the buttons show

  viewChanged() {
    const { view } = this.stage;
    byId("zoom-value").textContent = `${Math.round(view.scale * devicePixelRatio * 100)} %`;
    this.input.drawCursor();
  }

  drawState() {
    const { file, stage, mask } = this;
    byId("undo").disabled = !file || !(mask.state.undo || mask.waiting);
    byId("redo").disabled = !file || !mask.state.redo;
    for (const id of ["find", "repair"]) byId(id).disabled = !file || this.work.isBusy;
    for (const id of ["grow", "shrink", "invert", "clear", "load-mask"]) byId(id).disabled = !file;
    byId("save-mask").hidden = !file;
    byId("find").setAttribute("aria-pressed", stage.showsFound);
    byId("save").disabled = !this.canSave || this.work.isBusy;
    byId("result-panel").hidden = !file?.result;
    byId("another-fill").disabled = this.work.isBusy || mask.state.empty || this.recipe.values.model !== "inpaint";
    byId("marks-shown").setAttribute("aria-pressed", stage.showsMarks);
    const canCompare = Boolean(file && (file.result || stage.patch));
    byId("shown-side").hidden = !canCompare;
    for (const button of document.querySelectorAll("[data-side]")) button.setAttribute("aria-pressed", button.dataset.side === stage.shown);
    byId("divider").hidden = byId("left-tag").hidden = byId("right-tag").hidden = !(canCompare && stage.shown === "divided");
    byId("found-add").disabled = byId("found-drop").disabled = !stage.showsFound;
    byId("found-help").textContent = stage.showsFound
      ? "The yellow marks are added to the mask when you paint, repair, or press this button:"
      : "Move the slider to see the marks again.";
    // The next step stands out.
    const next = !file ? null : file.result && this.resultOf === mask.state.revision && !stage.showsFound ? "save" : mask.state.empty && !stage.showsFound ? "find" : "repair";
    for (const id of ["find", "repair", "save"]) byId(id).classList.toggle("primary", id === next);
    if (!file) return;
    const size = `${file.width}×${file.height}`;
    byId("subtitle").textContent = mask.isOffline || this.isOffline ? offline : size;
    document.body.classList.toggle("unsent", mask.isOffline);
  }
}
