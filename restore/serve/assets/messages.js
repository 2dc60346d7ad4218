// What the page tells: lines that go away by themselves, problems that stay until they are closed, and questions.

export const offline = "The server does not answer: trying again…";

export function say(text, seconds = 6) {
  const line = element("p", {}, text);
  byId("messages").replaceChildren(line);
  setTimeout(() => line.remove(), seconds * 1000);
}

export function complain(error) {
  if (error?.name === "AbortError") return;
  const hint = error.hint ? ` (${error.hint})` : "";
  const text = `${error.message || error}${hint}`;
  if ([...byId("alerts").children].some((line) => line.dataset.text === text)) return;
  const close = element("button", { type: "button", class: "icon", "aria-label": "Close this message" }, "✕");
  const line = element("p", { "data-text": text }, element("span", {}, text), close);
  close.addEventListener("click", () => line.remove());
  byId("alerts").append(line);
  setTimeout(() => line.remove(), 30_000);
}

/**
 * Ask a person.
 *
 * @param {Element} [more]  further controls, shown under the text
 * @returns {Promise<boolean>}
 */
export function ask(title, text, yes, more = null) {
  const dialog = byId("ask");
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  for (const one of dialog.querySelectorAll("[data-more]")) one.hidden = one !== more;
  dialog.returnValue = "no";
  dialog.showModal();
  byId("ask-yes").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
