// Keys of the whole page. Those that move the brush are in `input.js`.

const tools = { b: "brush", l: "lasso", p: "polygon", g: "bucket", m: "move" };
const tapMs = 250; // a shorter Tab moves the focus on, as everywhere; a longer one was held to see the original

const isTyping = (event) => event.target.matches("input:not([type=range], [type=checkbox], [type=color]), select, textarea");

export function bindKeys(editor) {
  const stage = byId("stage");
  let tabSince = null;

  const plain = {
    e: () => editor.setErase(!editor.tool.erase),
    x: () => editor.setMarksShown(!editor.stage.showsMarks),
    i: () => editor.mask.apply("invert"),
    f: () => editor.found.find(),
    d: () => editor.show(editor.stage.shown === "divided" ? "original" : "divided"),
    r: () => editor.show(editor.stage.shown === "repaired" ? "original" : "repaired"),
    j: () => editor.onStep(1),
    k: () => editor.onStep(-1),
    0: () => editor.stage.view.fit(),
    1: () => editor.stage.view.zoomToPixels(),
    "+": () => editor.stage.view.zoomBy(1.25),
    "=": () => editor.stage.view.zoomBy(1.25),
    "-": () => editor.stage.view.zoomBy(0.8),
    "[": () => editor.scaleBrush(1 / 1.2),
    "]": () => editor.scaleBrush(1.2),
    "{": () => editor.setSoftness(editor.tool.softness - 0.1),
    "}": () => editor.setSoftness(editor.tool.softness + 0.1),
  };

  function withControl(event) {
    const key = event.key.toLowerCase();
    if (key === "z") event.shiftKey ? editor.redo() : editor.undo();
    else if (key === "y") editor.redo();
    else if (key === "s") editor.save();
    else return false;
    return true;
  }

  function onStage(event) {
    if (document.activeElement !== stage && document.activeElement !== document.body) return false;
    if (event.key === " ") editor.input.holdSpace(true);
    else if (event.key === "Tab" && !event.shiftKey) {
      if (!event.repeat) {
        tabSince = event.timeStamp;
        editor.showOriginal(true);
      }
    } else return editor.input.press(event);
    return true;
  }

  function press(event) {
    if (event.altKey) return false;
    if (event.ctrlKey || event.metaKey) return Boolean(editor.file) && withControl(event);
    if (isTyping(event)) return false;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "h" || key === "?") byId("keys").showModal();
    else if (!editor.file && key !== "j" && key !== "k") return false;
    else if (event.target === byId("divider") && editor.divider.press(event)) { /* moved */ }
    else if (key === "Escape") editor.escape();
    else if (key === "r" && event.shiftKey) editor.repair();
    else if (tools[key] && !event.shiftKey) editor.setTool(tools[key]);
    else if (plain[key]) plain[key]();
    else return onStage(event);
    return true;
  }

  addEventListener("keydown", (event) => {
    const dialog = document.querySelector("dialog[open]");
    if (dialog) {
      if (dialog.id === "keys" && ["h", "?"].includes(event.key)) dialog.close();
      return;
    }
    if (event.target.type === "range" && /^Arrow|Home|End|Page/.test(event.key)) return;
    if (press(event)) event.preventDefault();
  });

  addEventListener("keyup", (event) => {
    if (event.key === " ") editor.input.holdSpace(false);
    if (event.key === "Tab" && tabSince !== null) {
      editor.showOriginal(false);
      if (event.timeStamp - tabSince < tapMs) focusAfter(stage);
      tabSince = null;
    }
  });
  addEventListener("blur", () => {
    if (tabSince !== null) editor.showOriginal(false);
    tabSince = null;
  });
}

/** Move the focus to what follows an element, as the Tab key does. */
function focusAfter(place) {
  const all = [...document.querySelectorAll("button, input, select, a[href], summary, [tabindex='0']")].filter(
    (one) => !one.disabled && one.checkVisibility() && !one.closest("dialog"),
  );
  all[all.indexOf(place) + 1]?.focus();
}
