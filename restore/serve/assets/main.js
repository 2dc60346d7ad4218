// The page: a contact sheet of the folder, and an editor for one photograph. Its address is #/ID.

import { Editor } from "./editor.js";
import { bindKeys } from "./keys.js";
import { ask, complain, offline, say } from "./messages.js";
import { get, listen, on, post } from "./server.js";
import { Sheet } from "./sheet.js";

async function start() {
  const session = await get("/page/session");
  const sheet = new Sheet((id) => { location.hash = `/${encodeURIComponent(id)}`; });
  const editor = new Editor(session);
  editor.onStep = (by) => step(by);
  const folder = session.folder.split(/[\\/]/).filter(Boolean).pop() || session.folder;

  function step(by) {
    const order = sheet.order, at = order.indexOf(editor.opening);
    const next = order[at + by];
    if (at >= 0 && next !== undefined) location.hash = `/${encodeURIComponent(next)}`;
  }

  function drawSubtitle() {
    const text = `Click a photograph to repair it. Saved repairs go to ${session.output}`;
    if (!byId("sheet").hidden) byId("subtitle").textContent = editor.isOffline ? offline : text;
  }

  async function route() {
    const id = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
    const isEditor = sheet.files.has(id);
    const before = editor.file?.id ?? null;
    for (const [name, shows] of [["sheet", !isEditor], ["editor", isEditor], ["back", isEditor], ["steps", isEditor]]) byId(name).hidden = !shows;
    document.body.classList.toggle("editing", isEditor);
    byId("ask").close();
    if (isEditor) {
      sheet.pause();
      await editor.open(id, sheet.files.get(id));
      const order = sheet.order, at = order.indexOf(id);
      byId("previous").disabled = at <= 0;
      byId("next").disabled = at < 0 || at >= order.length - 1;
      return;
    }
    editor.close();
    document.title = `${folder} · restore`;
    byId("title").firstChild.textContent = folder;
    drawSubtitle();
    sheet.arrange();
    if (before !== null) sheet.focus(before);
  }

  async function applyToAll() {
    const count = [...sheet.files.values()].filter((file) => file.state === "untouched").length;
    if (!count) return say("You have worked on every photograph already.");
    const yes = await ask(
      `Repair ${count === 1 ? "1 photograph" : `${count} photographs`}?`,
      `Every photograph that you have not worked on gets this recipe: ${editor.recipe.inWords()}. The mask is not copied. Meanwhile, you can continue to work. Nothing is saved until you press “Save” or “Save all”.`,
      "Repair", byId("recipe-of-all"),
    );
    if (!yes) return;
    try {
      await editor.recipeSent;
      const { jobs } = await post("/page/apply", { ids: null, recipe: editor.recipe.values });
      say(`${jobs.length === 1 ? "1 photograph is" : `${jobs.length} photographs are`} being repaired in the background.`);
    } catch (error) { complain(error); }
  }

  /** Save what has been repaired and not been saved since. Files that others have written are asked about once. */
  async function saveAll() {
    const repaired = [...sheet.files.values()].filter((file) => file.state === "repaired");
    if (!repaired.length) return say("There are no unsaved repairs.");
    let count = 0;
    const save = async (files, overwrite) => {
      const taken = [];
      for (const file of files) {
        try {
          const { notes } = await post(`/page/files/${file.id}/save`, { overwrite });
          byId("warnings").append(...notes.map((note) => element("li", {}, `${file.name}: ${note}`)));
          count++;
        } catch (error) {
          if (error.status !== 409) throw error;
          taken.push(file);
        }
      }
      return taken;
    };
    try {
      const taken = await save(repaired, false);
      const names = taken.map((file) => file.name);
      const question = `These files already exist in ${session.output}: ${names.join(", ")}.`;
      if (taken.length && (await ask(taken.length === 1 ? "Replace the file?" : `Replace ${taken.length} files?`, question, "Replace"))) await save(taken, true);
    } catch (error) { complain(error); }
    if (count) say(`${count === 1 ? "1 photograph is" : `${count} photographs are`} saved to ${session.output}.`, 12);
  }

  const meanwhile = new Set(); // for each list on its way, the files that have changed since it was asked for
  async function loadFiles() {
    const changed = [];
    meanwhile.add(changed);
    try {
      sheet.set([...(await get("/page/files")), ...changed]);
    } finally {
      meanwhile.delete(changed);
    }
  }

  on("file", (file) => {
    for (const changed of meanwhile) changed.push(file);
    sheet.update(file);
    editor.fileChanged(file);
  });
  on("job", (job) => sheet.showJob(job));
  on("connection", (isOpen) => {
    document.body.classList.toggle("offline", !isOpen);
    editor.isOffline = !isOpen;
    editor.drawState();
    drawSubtitle();
    // What happened before was not told.
    if (isOpen) loadFiles().then(() => editor.refresh()).catch(complain);
  });
  // Perhaps the photograph was edited in another program meanwhile.
  addEventListener("focus", () => { if (!editor.work.isBusy) editor.refresh(); });
  byId("back").addEventListener("click", () => { location.hash = ""; });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  for (const button of document.querySelectorAll(".apply")) button.addEventListener("click", applyToAll);
  byId("save-all").addEventListener("click", saveAll);
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("keys-close").addEventListener("click", () => byId("keys").close());
  bindKeys(editor);

  byId("warnings").append(...(session.warnings || []).map((warning) => element("li", {}, warning)));
  await loadFiles();
  listen();
  addEventListener("hashchange", route);
  // A single photograph needs no contact sheet.
  if (sheet.files.size === 1 && !location.hash) history.replaceState(null, "", `#/${sheet.order[0]}`);
  await route();
}

start().catch(complain);
