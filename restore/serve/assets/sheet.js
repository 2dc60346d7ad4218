// The contact sheet: all photographs with thumbnail and state, filtered and sorted.

const states = {
  untouched: "untouched", found: "damage found", repaired: "repaired", saved: "saved", failed: "failed",
};
const ranks = Object.keys(states);
const byName = new Intl.Collator("en", { numeric: true }).compare;

export class Sheet {
  /** @param {(id: string) => void} open */
  constructor(open) {
    this.open = open;
    this.files = new Map(); // id -> what the server says
    this.cards = new Map(); // id -> element
    for (const [state, text] of Object.entries(states)) byId("states").append(element("option", { value: state }, text));
    byId("filter").addEventListener("input", () => this.arrange());
    for (const id of ["states", "order"]) byId(id).addEventListener("change", () => this.arrange());
    byId("cards").addEventListener("keydown", (event) => this.press(event));
    byId("cards").addEventListener("click", (event) => {
      const card = event.target.closest("button");
      if (card) open(card.dataset.id);
    });
  }

  set(files) {
    this.files = new Map(files.map((file) => [String(file.id), file]));
    this.arrange();
  }

  /** Something is new about a file. */
  update(file) {
    const id = String(file.id);
    this.files.set(id, { ...this.files.get(id), ...file });
    this.draw(this.files.get(id));
    if (!byId("sheet").hidden && (byId("states").value || byId("order").value === "state")) this.arrange();
  }

  draw(file) {
    const id = String(file.id);
    let card = this.cards.get(id);
    if (!card) {
      const image = element("img", { alt: "", loading: "lazy", decoding: "async" });
      const button = element("button", { type: "button", "data-id": id },
        element("span", { class: "thumbnail" }, image),
        element("bdi", { class: "name" }, file.name),
        element("span", { class: "facts" }, element("span", { class: "state" }), element("span", { class: "size" })),
        element("span", { class: "reason" }),
        element("progress", { max: 1, value: 0, hidden: "", "aria-label": "Progress" }));
      card = element("li", {}, button);
      image.addEventListener("error", () => { image.hidden = true; });
      this.cards.set(id, card);
    }
    const find = (selector) => card.querySelector(selector);
    card.dataset.state = file.state;
    find("button").title = file.name;
    find(".state").textContent = states[file.state] || file.state;
    find(".size").textContent = file.width ? `${file.width}×${file.height}` : "";
    find(".reason").textContent = find(".reason").title = file.reason || "";
    const image = find("img"), source = `/page/files/${id}/thumbnail?v=${file.revision}`;
    if (file.state === "failed" && !file.width) image.hidden = true;
    else if (image.getAttribute("src") !== source) {
      image.hidden = false;
      image.setAttribute("src", source);
    }
  }

  showJob(job) {
    const card = this.cards.get(String(job.file));
    if (!card) return;
    const bar = card.querySelector("progress"), runs = job.state === "running" || job.state === "queued";
    bar.hidden = !runs;
    if (job.progress == null) bar.removeAttribute("value");
    else bar.value = job.progress;
    if (job.state === "queued") bar.value = 0;
  }

  /** Ids in the order in which they are shown. */
  get order() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean), state = byId("states").value;
    const shown = [...this.files.values()].filter(
      (file) => (!state || file.state === state) && words.every((word) => file.name.toLowerCase().includes(word)),
    );
    const compare = {
      name: () => 0,
      state: (a, b) => ranks.indexOf(a.state) - ranks.indexOf(b.state),
      found: (a, b) => (b.found_fraction ?? -1) - (a.found_fraction ?? -1),
      pixels: (a, b) => (b.width || 0) * (b.height || 0) - (a.width || 0) * (a.height || 0),
    }[byId("order").value];
    return shown.sort((a, b) => compare(a, b) || byName(a.name, b.name)).map((file) => String(file.id));
  }

  arrange() {
    const order = this.order, focused = document.activeElement?.dataset?.id;
    for (const id of order) this.draw(this.files.get(id));
    const cards = order.map((id) => this.cards.get(id)), list = byId("cards");
    // A click that has begun would be lost with its card.
    if (cards.length !== list.children.length || cards.some((card, at) => card !== list.children[at])) list.replaceChildren(...cards);
    byId("shown").textContent = order.length === this.files.size ? `${order.length} photographs` : `${order.length} of ${this.files.size}`;
    byId("empty").hidden = order.length > 0;
    if (focused) this.focus(focused);
  }

  /** Thumbnails that are not there yet wait: the editor needs the connections. */
  pause() {
    for (const image of byId("cards").querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");
  }

  focus(id) {
    const card = this.cards.get(String(id));
    if (!card?.isConnected) return;
    card.scrollIntoView({ block: "nearest" });
    card.querySelector("button").focus({ preventScroll: true });
  }

  press(event) {
    const buttons = [...byId("cards").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = buttons.findIndex((button) => button.offsetTop > buttons[0].offsetTop);
    const down = columns > 0 ? columns : buttons.length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -down, ArrowDown: down }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : at + by;
    if (Number.isNaN(to) || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
  }
}
