// The mask of the open image lives on the server. Changes go there one after the other, in the order they were made;
// a stroke stays on the stage until the server's tiles show it.

import { post, putFile } from "./server.js";

const ofAll = ["invert", "clear", "undo", "redo"]; // answered with the tiles in the stage that are empty or full
const keptSteps = 500; // of which it is known what undoing and redoing show

export class Mask {
  /**
   * @param {object} stage
   * @param {(error: Error) => void} failed
   * @param {() => void} changed
   */
  constructor(stage, failed, changed) {
    Object.assign(this, { stage, failed, changed });
    this.reset(null);
  }

  reset(file) {
    this.file = file?.id ?? null;
    this.state = file ? { ...file.mask } : { revision: 0, empty: true, undo: 0, redo: 0 };
    this.queue = Promise.resolve();
    this.waiting = 0;
    this.opened = {}; // tells the changes of this opening from those before
    this.isOffline = false;
    this.steps = new Map(); // number of an operation -> { before, after }, versions of the tiles that it changes
    this.stage.layers?.mask.renew(this.state.revision);
  }

  /**
   * @param {string} change  `stroke`, `polygon`, `found`, `invert`, `clear`, `grow`, `undo` or `redo`
   * @param {object} body
   * @param {object} [pending]  the entry of `stage.pending` that shows it meanwhile
   * @returns {Promise<object | null>}  the server's answer; null if it failed, which has been told
   */
  apply(change, body = {}, pending = null) {
    const level = ofAll.includes(change) ? `?level=${this.stage.level}` : "";
    return this.enqueue((address) => post(`${address}/mask/${change}${level}`, body), pending, change);
  }

  load(file) {
    return this.enqueue((address) => putFile(`${address}/mask.png`, file));
  }

  /** Make the repair the original: an operation of the mask, which it empties. */
  ground() {
    return this.enqueue((address) => post(`${address}/ground`));
  }

  /** The server's mask may have changed without this page. */
  synchronize(state) {
    if (state.revision <= this.state.revision) return;
    this.state = { ...state };
    this.steps.clear();
    this.stage.layers.mask.renew(state.revision);
    this.stage.redraw("marks");
  }

  /** Everything that was painted so far has arrived. */
  settled() {
    return this.queue;
  }

  enqueue(send, pending = null, change = "") {
    const file = this.file;
    if (file === null) return Promise.resolve(null); // none is open: one that cannot be read, or is being opened
    const { opened } = this;
    const arrived = () => { if (opened === this.opened) this.waiting--; };
    this.waiting++;
    this.changed();
    const done = this.queue.then(() => this.attempt(() => send(`/page/files/${file}`))).then(
      (answer) => {
        arrived();
        if (file === this.file) this.accept(answer, pending, change);
        return answer;
      },
      (error) => {
        arrived();
        if (pending) this.drop(pending);
        this.changed();
        this.failed(error);
        return null;
      },
    );
    this.queue = done;
    return done;
  }

  /** A server that does not answer is asked again: what was painted is not lost. */
  async attempt(send) {
    for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
      try {
        const answer = await send();
        this.setOffline(false);
        return answer;
      } catch (error) {
        if (error.status !== 0 && error.status !== 503) throw error;
        this.setOffline(true);
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  setOffline(isOffline) {
    if (isOffline === this.isOffline) return;
    this.isOffline = isOffline;
    this.changed();
  }

  accept(answer, pending, change) {
    const { revision, undo, redo, empty } = answer;
    const before = this.state.revision;
    this.state = { revision, undo, redo, empty };
    const tiles = answer.tiles || [];
    if (revision === before + 1) this.step(answer, change);
    else if (revision !== before) { // somebody else has changed it, too
      this.steps.clear();
      this.stage.layers.mask.renew(revision);
    }
    if (pending) Object.assign(pending, { revision, tiles });
    if (answer.box && revision <= before + 1) this.stage.redrawMarks(answer.box);
    else this.stage.redraw("marks");
    this.changed(answer);
  }

  /** The tiles that an operation has changed are new; those of one that is undone or redone may be known. */
  step({ revision, tiles, undo, even }, change) {
    const layer = this.stage.layers.mask;
    const number = change === "undo" ? undo + 1 : undo;
    const known = (change === "undo" || change === "redo") && this.steps.get(number);
    const [from, to] = change === "undo" ? ["after", "before"] : ["before", "after"];
    if (known?.[to]) known[from] = layer.restore(known[to], revision);
    else {
      if (change !== "undo" && change !== "redo") for (const later of [...this.steps.keys()]) if (later >= number) this.steps.delete(later);
      this.steps.set(number, { ...known, [from]: layer.renewTiles(tiles, revision) });
      if (this.steps.size > keptSteps) this.steps.delete(this.steps.keys().next().value);
    }
    for (const [level, x, y, value] of even || []) layer.know(level, x, y, value);
  }

  drop(pending) {
    this.stage.pending = this.stage.pending.filter((one) => one !== pending);
    this.stage.redraw("marks");
  }
}
