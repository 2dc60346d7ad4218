"use strict";
// One row at full size: a slider between any two images, error maps, the outline of the hole, zoom.

const viewer = (() => {
  const dialog = byId("viewer"), stage = byId("stage"), canvas = byId("canvas"), slider = byId("slider");
  const zooms = ["fit", "1", "2", "4"];
  const gains = [1, 2, 4];
  // Choices persist from row to row. A label that a row does not have is ignored.
  const state = { index: 0, left: null, right: null, all: false, error: false, outline: false, zoom: "fit", view: 0, gain: 1 };

  const divider = createDivider(slider, canvas);

  const row = () => page.rows[state.index];
  const view = () => row().views[Math.min(state.view, row().views.length - 1)];

  function sides(of, seen) {
    const labels = Object.keys(seen.images);
    const left = labels.includes(of.left) ? of.left : labels[0];
    const others = labels.filter((label) => label !== left);
    const right = labels.includes(of.right) ? of.right : others[0] || left;
    return [left, right, labels];
  }

  function fileOf(seen, label) {
    const error = state.error && seen.errors[label];
    return [`images/${error || seen.images[label]}`, Boolean(error)];
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    select.value = chosen;
  }

  function setImage(image, seen, label) {
    const [file, isError] = fileOf(seen, label);
    if (image.getAttribute("src") !== file) image.setAttribute("src", file);
    image.style.filter = isError ? 'url("#heat")' : "none";
    image.alt = isError ? `error map of ${label}` : label;
    return isError;
  }

  function tag(place, label, isError) {
    byId(place).textContent = isError ? `|${label} − ${page.reference}|` : label;
  }

  /** All images side by side; a click takes one to the right of the slider. */
  function showAll(seen) {
    byId("all").checked = state.all;
    canvas.hidden = !seen || state.all;
    byId("gallery").hidden = !seen || !state.all;
    if (!seen || !state.all) return byId("gallery").replaceChildren();
    byId("gallery").replaceChildren(...Object.keys(seen.images).map((label) => {
      const image = element("img", { width: seen.size[0], height: seen.size[1] });
      const isError = setImage(image, seen, label);
      const choice = element("button", { type: "button" }, image, element("bdi", {}, isError ? `|${label} − ${page.reference}|` : label));
      choice.addEventListener("click", () => { state.all = false; choose("right", label); slider.focus({ preventScroll: true }); });
      return choice;
    }));
  }

  function showImages() {
    const seen = view();
    showAll(seen);
    byId("nothing").hidden = Boolean(seen);
    for (const control of document.querySelectorAll(".controls")) control.hidden = !seen;
    byId("legend").hidden = true;
    if (!seen) return;
    const [left, right, labels] = sides(state, seen);
    const options = labels.map((label) => [label, label]);
    fill(byId("left"), options, left);
    fill(byId("right"), options, right);
    const errors = [setImage(byId("over"), seen, left), setImage(byId("under"), seen, right)];
    tag("left-tag", left, errors[0]);
    tag("right-tag", right, errors[1]);

    const views = row().views.map((one, at) => [at, viewName(one, at)]);
    fill(byId("view"), views, row().views.indexOf(seen));
    byId("view-choice").hidden = views.length < 2;

    const hasErrors = Object.keys(seen.errors).length > 0;
    byId("error").disabled = !hasErrors;
    byId("error").checked = state.error && hasErrors;
    byId("gain-choice").hidden = !byId("error").checked;
    byId("legend").hidden = !errors.includes(true);
    byId("legend-high").textContent = `${Math.round(255 / (page.gain * state.gain))} or more of 255 levels (mean of R, G, B; × ${page.gain * state.gain})`;
    for (const channel of "rgb") byId(`gain-${channel}`).setAttribute("slope", state.gain);

    byId("outline").disabled = !seen.outline;
    byId("outline").checked = state.outline && Boolean(seen.outline);
    byId("hole").hidden = !byId("outline").checked;
    if (byId("outline").checked) byId("hole").setAttribute("src", `images/${seen.outline}`);
    resize();
    divider.moveTo(divider.at);
  }

  function viewName(one, at) {
    const [width, height] = row().size;
    if (at > 0) return `crop at 100 %, ${one.size[0]}×${one.size[1]}`;
    return one.scale < 1 ? `whole, ${width}×${height} at ${Math.round(one.scale * 100)} %` : `whole, ${width}×${height}`;
  }

  function show() {
    const shown = row();
    byId("viewer-name").replaceChildren(element("bdi", {}, shown.name || "(no name)"));
    byId("viewer-note").replaceChildren();
    if (shown.group) byId("viewer-note").append(element("span", { class: "group" }, shown.group));
    if (shown.note) byId("viewer-note").append(element("span", { class: "note" }, shown.note));
    byId("scores").replaceChildren(
      ...page.columns.map((column, at) =>
        element("div", {}, element("dt", {}, column.title), element("dd", {}, scoreText(shown.scores[at], column)))),
    );
    const position = list.order.indexOf(state.index);
    byId("position").textContent = position < 0 ? "" : `${position + 1} of ${list.order.length}`;
    byId("previous").disabled = position <= 0;
    byId("next").disabled = position < 0 || position >= list.order.length - 1;
    showImages();
    setAddress(`#${state.index + 1}`);
    for (const neighbour of [list.order[position + 1], list.order[position - 1]]) {
      const seen = neighbour === undefined ? null : page.rows[neighbour].views[0];
      if (seen) for (const label of sides(state, seen).slice(0, 2)) new Image().src = fileOf(seen, label)[0];
    }
  }

  // ---- size and divider

  function resize() {
    const seen = view();
    if (!dialog.open || !seen) return;
    const [width, height] = seen.size;
    const room = stage.getBoundingClientRect();
    const fit = Math.min(room.width / width, room.height / height, 4);
    const scale = state.zoom === "fit" ? fit : Number(state.zoom) / devicePixelRatio;
    canvas.style.width = `${Math.max(Math.round(width * scale), 1)}px`;
    canvas.style.height = `${Math.max(Math.round(height * scale), 1)}px`;
    canvas.classList.toggle("sharp", Number(state.zoom) >= 2);
    stage.classList.toggle("zoomed", state.zoom !== "fit");
    byId("zoom").value = state.zoom;
  }

  function zoomTo(zoom) {
    state.zoom = zoom;
    resize();
    stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
  }

  let held = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !view() || state.all) return;
    held = state.zoom === "fit" || divider.isNear(event) ? { border: true } : { x: event.clientX, y: event.clientY };
    stage.setPointerCapture(event.pointerId);
    slider.focus({ preventScroll: true });
    drag(event);
    event.preventDefault();
  });
  function drag(event) {
    if (!held) return;
    if (held.border) divider.follow(event);
    else {
      stage.scrollBy(held.x - event.clientX, held.y - event.clientY);
      held = { x: event.clientX, y: event.clientY };
    }
  }
  stage.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { held = null; });
  new ResizeObserver(resize).observe(stage);

  // ---- opening, stepping, closing

  function open(index) {
    state.index = index;
    if (!dialog.open) dialog.showModal();
    show();
    slider.focus({ preventScroll: true });
  }

  function step(by) {
    const next = list.order[list.order.indexOf(state.index) + by];
    if (list.order.includes(state.index) && next !== undefined) {
      state.index = next;
      show();
    }
  }

  function setAddress(hash) {
    try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { /* some browsers do not allow this for local files */ }
  }

  function openFromAddress() {
    const number = Number(location.hash.slice(1));
    if (Number.isInteger(number) && page.rows[number - 1]) open(number - 1);
  }

  function choose(side, label) {
    const other = side === "left" ? "right" : "left";
    const [left, right] = sides(state, view());
    const before = { left, right };
    state[side] = label;
    // If both sides would show the same image, they swap.
    state[other] = before[other] === label ? before[side] : before[other];
    showImages();
  }

  function press(event) {
    const seen = view();
    const digit = /^Digit([1-9])$/.exec(event.code);
    const label = digit && seen && Object.keys(seen.images)[Number(digit[1]) - 1];
    if (event.key === "j" || event.key === "ArrowDown") step(1);
    else if (event.key === "k" || event.key === "ArrowUp") step(-1);
    else if (divider.press(event)) { /* moved */ }
    else if (event.key === "a") byId("all").click();
    else if (event.key === "e") byId("error").click();
    else if (event.key === "o") byId("outline").click();
    else if (event.key === "z") zoomTo(zooms[(zooms.indexOf(state.zoom) + 1) % zooms.length]);
    else if (event.key === "v") { state.view = (state.view + 1) % Math.max(row().views.length, 1); showImages(); }
    else if (event.key === "s" && seen) choose("left", sides(state, seen)[1]);
    else if (label) choose(event.shiftKey ? "right" : "left", label);
    else return;
    event.preventDefault();
  }

  dialog.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && !isTyping(event)) press(event);
  });
  dialog.addEventListener("close", () => {
    setAddress("");
    const at = elements[state.index];
    at.scrollIntoView({ block: "nearest" });
    at.querySelector(".open").focus({ preventScroll: true });
  });
  byId("close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  const choices = {
    left: (value) => choose("left", value),
    right: (value) => choose("right", value),
    view: (value) => { state.view = Number(value); showImages(); },
    zoom: zoomTo,
    gain: (value) => { state.gain = Number(value); showImages(); },
  };
  for (const [id, change] of Object.entries(choices)) {
    byId(id).addEventListener("change", (event) => { change(event.target.value); slider.focus({ preventScroll: true }); });
  }
  for (const id of ["all", "error", "outline"]) {
    byId(id).addEventListener("change", (event) => { state[id] = event.target.checked; showImages(); });
  }
  fill(byId("gain"), gains.map((gain) => [gain, gain * page.gain]), 1);
  byId("error-label").textContent = page.reference === null ? "Error map" : `Difference to ${page.reference}`;

  return { open, openFromAddress };
})();
