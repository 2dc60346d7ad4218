// The one job that a person waits for: its progress, and a button that cancels it.

import { complain, say } from "./messages.js";
import { cancel, finished } from "./server.js";

export class Work {
  /** @param {() => void} changed  called when work begins or ends */
  constructor(changed) {
    this.changed = changed;
    this.job = null;
    byId("cancel").addEventListener("click", () => this.cancel());
  }

  get isBusy() {
    return this.job !== null;
  }

  /**
   * @param {string} text  what is done
   * @param {() => Promise<{job: string}>} start
   * @returns {Promise<object | null>}  the job: done or cancelled; null if it failed, which has been told
   */
  async run(text, start) {
    const mine = (this.job = { id: null, isCancelled: false });
    this.show(text, null);
    this.changed();
    try {
      const { job } = await start();
      mine.id = job;
      if (mine.isCancelled) await cancel(job);
      const over = await finished(job, (now) => { if (this.job === mine && !mine.isCancelled) this.show(text, now.progress, now.state, now.message); });
      if (over.state === "cancelled") say("Cancelled.");
      return over;
    } catch (error) {
      complain(error);
      return null;
    } finally {
      if (this.job === mine) this.stop();
    }
  }

  show(text, progress, state = "running", message = "") {
    byId("work").hidden = false;
    // Usually a word such as "repairing", which the text has already.
    if (message.includes(" ")) text = `${message[0].toUpperCase()}${message.slice(1)}`;
    const share = progress == null ? "" : ` ${Math.round(100 * progress)} %`;
    byId("work-text").textContent = `${text}${state === "queued" ? " (waiting for its turn)" : ""}…${share}`;
    if (progress == null) byId("work-progress").removeAttribute("value");
    else byId("work-progress").value = progress;
  }

  /** No longer show it. The server goes on with it. */
  stop() {
    this.job = null;
    byId("work").hidden = true;
    this.changed();
  }

  async cancel() {
    if (!this.job) return;
    this.job.isCancelled = true;
    byId("work-text").textContent = "Cancelling…";
    if (this.job.id !== null) await cancel(this.job.id).catch(complain);
  }
}
