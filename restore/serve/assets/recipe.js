// The recipe as a form: one line of explanation for each option, and its default.

const ofAll = ["find", "sensitivity"]; // only matter when the recipe is applied to all
const exclusive = [["clean_up", "match_grain"]]; // one switches the other off

export class Recipe {
  /**
   * @param {object[]} ingredients  from the server's session
   * @param {HTMLElement} place  for the options of one photograph
   * @param {HTMLElement} placeOfAll  for those that only matter when the recipe is applied to all
   * @param {(values: object) => void} changed
   */
  constructor(ingredients, place, placeOfAll, changed) {
    this.ingredients = ingredients;
    this.changed = changed;
    this.inputs = {};
    for (const one of ingredients) (ofAll.includes(one.name) ? placeOfAll : place).append(this.field(one));
    this.set({});
  }

  field(one) {
    const id = `recipe-${one.name}`, help = element("p", { class: "about", id: `${id}-help` }, `${one.help} Default: ${this.valueInWords(one, one.default)}.`);
    const input = this.input(one, id);
    input.setAttribute("aria-describedby", help.id);
    this.inputs[one.name] = input;
    input.addEventListener("change", () => this.edited(one));
    if (one.kind === "bool") return element("div", { class: "option" }, element("label", { class: "toggle" }, input, ` ${one.label}`), help);
    const output = one.kind === "number" ? [element("output", { for: id })] : [];
    if (output.length) input.addEventListener("input", () => { output[0].textContent = input.value; });
    return element("div", { class: "option" }, element("div", { class: "slider" }, element("label", { for: id }, one.label), input, ...output), help);
  }

  input(one, id) {
    if (one.kind === "bool") return element("input", { type: "checkbox", id });
    if (one.kind === "choice") {
      const select = element("select", { id });
      select.append(...one.choices.map((choice) => element("option", { value: choice }, choice)));
      return select;
    }
    if (one.kind === "integer") return element("input", { type: "number", id, min: one.minimum, max: one.maximum, step: 1 });
    return element("input", { type: "range", id, min: one.minimum, max: one.maximum, step: (one.maximum - one.minimum) / 20 });
  }

  valueInWords(one, value) {
    return one.kind === "bool" ? (value ? "on" : "off") : String(value);
  }

  /** What it does to one photograph, as far as that differs from the defaults. */
  inWords() {
    const { values } = this;
    const changed = this.ingredients.filter((one) => !ofAll.includes(one.name) && values[one.name] !== one.default);
    return changed.map((one) => `${one.label.toLowerCase()} ${this.valueInWords(one, values[one.name])}`).join(", ") || "the defaults";
  }

  edited(one) {
    for (const pair of exclusive) {
      if (pair.includes(one.name) && this.inputs[one.name].checked) {
        for (const other of pair) if (other !== one.name && this.inputs[other]) this.inputs[other].checked = false;
      }
    }
    this.changed(this.values);
  }

  get values() {
    const read = (one) => {
      const input = this.inputs[one.name];
      return one.kind === "bool" ? input.checked : one.kind === "number" || one.kind === "integer" ? Number(input.value) : input.value;
    };
    return Object.fromEntries(this.ingredients.map((one) => [one.name, read(one)]));
  }

  /** Show these values, and the defaults of the others. */
  set(values) {
    for (const one of this.ingredients) {
      const input = this.inputs[one.name], value = values[one.name] ?? one.default;
      if (one.kind === "bool") input.checked = Boolean(value);
      else {
        input.value = value;
        const output = input.parentElement.querySelector("output");
        if (output) output.textContent = input.value;
      }
    }
  }
}
