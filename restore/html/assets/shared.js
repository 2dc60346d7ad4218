"use strict";
// What the report page and the editor share: elements, light and dark, and the divider that compares two images.

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ---- light and dark

const themes = ["auto", "light", "dark"];

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  try { localStorage.setItem("restore-page-theme", theme); } catch { /* some browsers have no storage for local files */ }
}

function nextTheme() {
  setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
}

function storedTheme() {
  try {
    const stored = localStorage.getItem("restore-page-theme");
    return themes.includes(stored) ? stored : "auto";
  } catch {
    return "auto";
  }
}

setTheme(storedTheme());
byId("theme").addEventListener("click", nextTheme);

// ---- a divider between two layers

/**
 * @param {HTMLElement} handle  an element with role="slider" inside the track
 * @param {HTMLElement} track  its width is 0 to 100 %; its style gets `--at`, the position in percent
 * @param {(share: number) => void} moved  called with the position, 0 to 1
 */
function createDivider(handle, track, moved = () => {}) {
  const near = 28; // the divider can be grabbed within this distance (px)
  const divider = {
    at: 0.5,
    moveTo(share) {
      divider.at = Math.min(Math.max(share, 0), 1);
      track.style.setProperty("--at", `${divider.at * 100}%`);
      handle.setAttribute("aria-valuenow", Math.round(divider.at * 100));
      moved(divider.at);
    },
    isNear(event) {
      const box = track.getBoundingClientRect();
      return Math.abs(event.clientX - (box.left + divider.at * box.width)) < near;
    },
    follow(event) {
      const box = track.getBoundingClientRect();
      divider.moveTo((event.clientX - box.left) / box.width);
    },
    /** Whether the key was for the divider. */
    press(event) {
      const far = event.shiftKey ? 0.1 : 0.01;
      if (event.key === "ArrowLeft") divider.moveTo(divider.at - far);
      else if (event.key === "ArrowRight") divider.moveTo(divider.at + far);
      else if (event.key === "Home") divider.moveTo(0);
      else if (event.key === "End") divider.moveTo(1);
      else return false;
      return true;
    },
  };
  return divider;
}
