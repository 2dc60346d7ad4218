// What the detector found: marks over the photograph that follow a slider at once, until they join the mask.

import { complain, say } from "./messages.js";
import { get, post } from "./server.js";

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const logit = (p) => Math.log(p / (1 - p));

export class Found {
  constructor(editor) {
    this.editor = editor;
    this.facts = null; // of the server: ready, revision, threshold, sensitivities
    this.joining = null; // settles when the marks that are shown are in the mask
    this.addedAt = null; // revision of the mask right after the marks joined it
    byId("sensitivity").addEventListener("input", (event) => this.slide(sigmoid(-Number(event.target.value))));
    byId("found-add").addEventListener("click", () => this.commit());
    byId("found-drop").addEventListener("click", () => this.show(false));
  }

  get isShown() {
    return this.editor.stage.showsFound;
  }

  get threshold() {
    return this.editor.stage.threshold;
  }

  set(facts) {
    const isNew = facts?.ready && facts.revision !== this.facts?.revision;
    this.facts = facts;
    this.editor.stage.layers.found.renew(facts?.revision ?? 0);
    byId("found-panel").hidden = !facts?.ready;
    if (!facts?.ready) this.show(false);
    if (isNew) {
      this.addedAt = null;
      this.setThreshold(facts.threshold);
    }
  }

  setThreshold(threshold) {
    const { stage } = this.editor;
    stage.threshold = threshold;
    const slider = byId("sensitivity");
    slider.value = -logit(Math.min(Math.max(threshold, 0.001), 0.999));
    const named = Object.entries(this.facts?.sensitivities || {}).find(([, value]) => Math.abs(value - threshold) < 0.01);
    const text = named ? named[0] : `threshold ${threshold.toFixed(2)}`;
    slider.setAttribute("aria-valuetext", text);
    byId("sensitivity-value").textContent = text;
    stage.redraw("found");
  }

  slide(threshold) {
    this.setThreshold(threshold);
    this.editor.showOriginalSide();
    if (this.joining) this.joining.then(() => this.takeBack());
    else this.takeBack();
  }

  /** The marks that joined the mask last come out again: the slider still decides. */
  takeBack() {
    if (this.addedAt !== null && this.addedAt === this.editor.mask.state.revision) this.editor.mask.apply("undo");
    this.addedAt = null;
    if (!this.isShown) this.show(true);
  }

  show(shows) {
    this.editor.stage.showsFound = shows;
    this.editor.stage.redraw("found");
    this.editor.drawState();
  }

  /** Whether marks wait that have neither joined the mask nor been painted over. */
  isUndecided({ found, mask, result, original }) {
    return found.ready && mask.empty && !mask.undo && !mask.redo && !result && !original.is_repair;
  }

  async find() {
    const { editor } = this;
    if (!editor.file || editor.work.isBusy) return;
    const id = editor.file.id;
    if (this.facts?.ready) {
      editor.showOriginalSide();
      return this.show(!this.isShown);
    }
    const job = await editor.work.run("Looking for damage", () => post(`/page/files/${id}/detect`));
    if (job?.state !== "done" || editor.file?.id !== id) return;
    try {
      const file = await get(`/page/files/${id}`);
      if (editor.file?.id !== id) return;
      editor.file = file;
      this.set(file.found);
      editor.showOriginalSide();
      this.show(true);
      say(this.inWords(file.found_fraction), 10);
    } catch (error) { complain(error); }
  }

  /** @param {number} share  of the photograph that was found, 0 to 1 */
  inWords(share) {
    if (!share) return "No damage was found. Paint over it yourself.";
    const percent = share < 0.001 ? "less than 0.1" : (100 * share).toFixed(1);
    return `Damage was found on ${percent} % of the photograph and marked in yellow. Correct the marks with the brush, or press Repair.`;
  }

  /** The marks that are shown join the mask. */
  commit() {
    if (this.isShown) this.joining ??= this.join().finally(() => { this.joining = null; });
    return this.joining;
  }

  async join() {
    const { editor } = this;
    const answer = await editor.mask.apply("found", { threshold: this.threshold, at: null, erase: false });
    if (!answer) return;
    this.addedAt = answer.revision;
    this.show(false);
    editor.stage.showMarks();
  }

  async bucket(x, y, erase) {
    if (!this.facts?.ready) return say("The bucket adds detected damage to the mask. Press “Find damage” first.");
    const answer = await this.editor.mask.apply("found", { threshold: this.threshold, at: [x, y], erase });
    if (!answer) return;
    if (answer.tiles.length) this.editor.stage.showMarks();
    else say("No damage was found here.");
  }
}
