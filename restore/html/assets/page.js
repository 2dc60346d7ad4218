"use strict";
// The list of rows with sorting, filter and histograms. `viewer.js` shows one row at full size.
// All text is inserted as text, never as markup, because names may contain anything.

const page = window.PAGE;

function svg(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const isNumber = (score) => typeof score === "number";

function scoreText(score, column) {
  if (score === null) return "–";
  return isNumber(score) ? score.toFixed(column.decimals) : score === "inf" ? "∞" : "−∞";
}

// ---- rows: each element is built once, then only moved or removed

const thumbnailSide = 96;

function thumbnailOf(row) {
  if (!row.thumbnail) return element("span", { class: "no-thumbnail" }, "no image");
  const scale = Math.min(thumbnailSide / row.size[0], (thumbnailSide * 0.75) / row.size[1]);
  const attributes = {
    src: `images/${row.thumbnail}`, alt: "", loading: "lazy", decoding: "async",
    width: Math.max(Math.round(row.size[0] * scale), 1), height: Math.max(Math.round(row.size[1] * scale), 1),
  };
  return element("img", attributes);
}

function rowElement(row, index) {
  const name = element("bdi", { class: "name" }, row.name || "(no name)");
  const open = element("button", { type: "button", class: "open", title: row.name }, name);
  const about = element("div", { role: "cell", class: "about" }, open);
  if (row.group) about.append(element("span", { class: "group" }, row.group));
  if (row.note) about.append(element("span", { class: "note", title: row.note }, row.note));
  const scores = page.columns.map((column, at) => {
    const value = element("span", { class: "value" }, scoreText(row.scores[at], column));
    const kind = isNumber(row.scores[at]) ? "score" : "score none";
    return element("div", { role: "cell", class: kind }, element("span", { class: "label" }, column.title), value);
  });
  const image = element("div", { role: "cell", class: "thumbnail" }, thumbnailOf(row));
  const made = element("div", { role: "row", class: "row", "data-index": index }, image, about, ...scores);
  return made;
}

const elements = page.rows.map(rowElement);
const haystacks = page.rows.map((row) => `${row.name}\n${row.note}\n${row.group}`.toLowerCase());
const list = { order: page.rows.map((_, index) => index), sort: null, descending: false, filter: "", group: "" };

function compareBy(key, descending) {
  if (key === "name") {
    const collator = new Intl.Collator("en", { numeric: true });
    return (a, b) => (descending ? -1 : 1) * collator.compare(page.rows[a].name, page.rows[b].name);
  }
  return (a, b) => {
    const [first, second] = [page.rows[a].scores[key], page.rows[b].scores[key]];
    // Infinite and missing scores come last in both directions, infinite ones first.
    if (!isNumber(first) || !isNumber(second)) {
      const rank = (score) => (isNumber(score) ? 0 : score === null ? 2 : 1);
      return rank(first) - rank(second);
    }
    return descending ? second - first : first - second;
  };
}

function arrange() {
  const words = list.filter.toLowerCase().split(/\s+/).filter(Boolean);
  list.order = page.rows.map((_, index) => index).filter(
    (index) => (!list.group || page.rows[index].group === list.group) && words.every((word) => haystacks[index].includes(word)),
  );
  if (list.sort !== null) {
    const compare = compareBy(list.sort, list.descending);
    list.order.sort((a, b) => compare(a, b) || a - b);
  }
  byId("body").replaceChildren(...list.order.map((index) => elements[index]));
  byId("shown").textContent = `${list.order.length} of ${page.rows.length}`;
  byId("empty").hidden = list.order.length > 0;
  for (const header of byId("head").children) {
    if (!header.dataset.key) continue;
    const sorted = String(list.sort) === header.dataset.key;
    header.setAttribute("aria-sort", sorted ? (list.descending ? "descending" : "ascending") : "none");
  }
  drawHistograms();
}

function sortBy(key) {
  // First click: worst first, which is usually what one looks for. Second: best first. Third: the original order.
  const worstIsHigh = key !== "name" && page.columns[key].better === "lower";
  if (list.sort !== key) [list.sort, list.descending] = [key, worstIsHigh];
  else if (list.descending === worstIsHigh) list.descending = !worstIsHigh;
  else list.sort = null;
  arrange();
}

function buildHead() {
  const header = (key, title, kind) => {
    const button = element("button", { type: "button" }, element("span", {}, title));
    button.addEventListener("click", () => sortBy(key));
    return element("div", { role: "columnheader", class: kind, "data-key": key, "aria-sort": "none" }, button);
  };
  byId("head").append(
    element("div", { role: "columnheader", class: "thumbnail" }, element("span", { class: "unseen" }, "Image")),
    header("name", "Name", "about"),
    ...page.columns.map((column, at) => header(at, column.title, "score")),
  );
  document.documentElement.style.setProperty("--columns", page.columns.length);
  byId("rows").classList.toggle("wide", page.columns.length > 8);
}

function buildGroups() {
  const counts = new Map();
  for (const row of page.rows) if (row.group) counts.set(row.group, (counts.get(row.group) || 0) + 1);
  if (!counts.size) return;
  const select = byId("group");
  select.append(element("option", { value: "" }, "All groups"));
  for (const [group, count] of counts) select.append(element("option", { value: group }, `${group} (${count})`));
  select.hidden = false;
  select.addEventListener("change", () => { list.group = select.value; arrange(); });
}

// ---- histograms: all rows pale, filtered rows strong

const chart = { width: 320, height: 96, bins: 24 };

function histogramOf(column, at) {
  const numbers = (indices) => indices.map((index) => page.rows[index].scores[at]).filter(isNumber);
  const all = numbers(page.rows.map((_, index) => index));
  const figure = element("figure", { class: "histogram" }, element("figcaption", {}, column.title));
  if (!all.length) {
    figure.append(element("p", { class: "empty" }, "no values"));
    return figure;
  }
  const low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b));
  const bins = high > low ? chart.bins : 1;
  const binOf = (value) => (high > low ? Math.min(Math.floor(((value - low) / (high - low)) * bins), bins - 1) : 0);
  const count = (values) => values.reduce((sums, value) => { sums[binOf(value)] += 1; return sums; }, new Array(bins).fill(0));
  const shownValues = numbers(list.order);
  const [total, shown] = [count(all), count(shownValues)];
  const tallest = Math.max(...total);
  const drawing = svg("svg", { viewBox: `0 0 ${chart.width} ${chart.height}`, role: "img", preserveAspectRatio: "none" });
  drawing.setAttribute("aria-label", `Histogram of ${column.title}`);
  const step = chart.width / bins;
  for (let bin = 0; bin < bins; bin += 1) {
    for (const [counts, kind] of [[total, "all"], [shown, "some"]]) {
      const height = (counts[bin] / tallest) * (chart.height - 2);
      if (height === 0) continue;
      const bar = svg("rect", { class: kind, x: bin * step + 0.75, y: chart.height - height, width: Math.max(step - 1.5, 1), height });
      const from = low + (bin * (high - low)) / bins, to = low + ((bin + 1) * (high - low)) / bins;
      const label = svg("title");
      label.textContent = `${from.toFixed(column.decimals)} to ${to.toFixed(column.decimals)}: ${shown[bin]} of ${total[bin]}`;
      bar.append(label);
      drawing.append(bar);
    }
  }
  const mean = shownValues.length ? shownValues.reduce((a, b) => a + b, 0) / shownValues.length : null;
  if (mean !== null && high > low) {
    const x = ((mean - low) / (high - low)) * chart.width;
    drawing.append(svg("line", { class: "mean", x1: x, x2: x, y1: 0, y2: chart.height }));
  }
  const axis = element("div", { class: "axis" }, element("span", {}, low.toFixed(column.decimals)));
  if (mean !== null) axis.append(element("span", { class: "mean" }, `mean ${mean.toFixed(column.decimals)}`));
  axis.append(element("span", {}, high.toFixed(column.decimals)));
  figure.append(drawing, axis);
  const infinite = page.rows.filter((row) => typeof row.scores[at] === "string").length;
  const missing = page.rows.length - all.length - infinite;
  const apart = [infinite && `${infinite} × ∞`, missing && `${missing} without a value`].filter(Boolean).join(", ");
  if (apart) figure.append(element("p", { class: "apart" }, `${apart}, not in the histogram`));
  return figure;
}

function drawHistograms() {
  byId("histograms").replaceChildren(...(page.rows.length ? page.columns.map(histogramOf) : []));
}

// ---- keys of the list; those of the viewer are its own

function focusedRow() {
  const row = document.activeElement?.closest?.("#body .row");
  return row ? list.order.indexOf(Number(row.dataset.index)) : -1;
}

function stepInList(by) {
  if (!list.order.length) return;
  const at = Math.min(Math.max(focusedRow() + by, 0), list.order.length - 1);
  const row = elements[list.order[at]];
  row.querySelector(".open").focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function isTyping(event) {
  return event.target.matches("input[type=search], select, textarea");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event)) {
    if (event.key === "Escape" && event.target.id === "filter") event.target.blur();
    return;
  }
  if (event.key === "?") byId("keys").open ? byId("keys").close() : byId("keys").showModal();
  else if (byId("keys").open) return;
  else if (event.key === "t") nextTheme();
  else if (byId("viewer").open) return;
  else if (event.key === "j" || event.key === "ArrowDown") stepInList(1);
  else if (event.key === "k" || event.key === "ArrowUp") stepInList(-1);
  else if (event.key === "/") byId("filter").focus();
  else return;
  event.preventDefault();
});

// All scripts have run by then, and the page does not yet count as loaded.
document.addEventListener("DOMContentLoaded", () => {
  byId("body").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row && !String(getSelection())) viewer.open(Number(row.dataset.index));
  });
  byId("filter").addEventListener("input", (event) => { list.filter = event.target.value; arrange(); });
  byId("keys-close").addEventListener("click", () => byId("keys").close());
  for (const button of document.querySelectorAll(".help")) button.addEventListener("click", () => byId("keys").showModal());
  buildHead();
  buildGroups();
  arrange();
  viewer.openFromAddress();
});
