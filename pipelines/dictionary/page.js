"use strict";
(() => {
  const box = document.getElementById("q"), hits = document.getElementById("hits"), count = document.getElementById("count");
  const MOST = 200;
  const entries = [...document.querySelectorAll("[data-name]")].map((node) => {
    const about = node.tagName === "TR" ? [...node.cells].slice(1).map((cell) => cell.textContent).filter(Boolean).join(" · ") : node.querySelector(".comment")?.textContent || "";
    return {id: node.id, name: node.dataset.name, about, low: node.dataset.name.toLowerCase(), text: (node.dataset.name + " " + about).toLowerCase()};
  });
  let found = [], at = 0;

  function rank(entry, whole) {
    const last = entry.low.split(".").pop();
    if (entry.low === whole || last === whole) return entry.low === whole ? 0 : 1;
    if (entry.low.startsWith(whole) || last.startsWith(whole)) return 2;
    return entry.low.includes(whole) ? 3 : 4;
  }

  function search() {
    const whole = box.value.trim().toLowerCase(), words = whole.split(/\s+/).filter(Boolean);
    found = words.length ? entries.filter((entry) => words.every((word) => entry.text.includes(word))) : [];
    found = found.map((entry) => [rank(entry, whole), entry]).sort((one, two) => one[0] - two[0]).map((pair) => pair[1]);
    at = 0;
    count.textContent = words.length ? `${found.length} found` : "";
    hits.replaceChildren(...found.slice(0, MOST).map(hit));
    hits.hidden = !words.length || !found.length;
    select(0);
  }

  function hit(entry) {
    const link = document.createElement("a"), name = document.createElement("b"), about = document.createElement("span");
    link.href = "#" + encodeURI(entry.id);
    link.setAttribute("role", "option");
    name.textContent = entry.name;
    about.textContent = entry.about.slice(0, 140);
    link.append(name, about);
    link.addEventListener("click", close);
    return link;
  }

  function select(place) {
    const links = hits.children;
    if (!links.length) return;
    links[at]?.setAttribute("aria-selected", "false");
    at = (place + links.length) % links.length;
    links[at].setAttribute("aria-selected", "true");
    links[at].scrollIntoView({block: "nearest"});
  }

  function close() {
    hits.hidden = true;
    box.blur();
  }

  box.addEventListener("input", search);
  box.addEventListener("focus", () => { if (box.value) search(); });
  document.addEventListener("click", (event) => { if (!hits.contains(event.target) && event.target !== box) hits.hidden = true; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== box) {
      event.preventDefault();
      box.focus();
      box.select();
    } else if (document.activeElement === box) {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        select(at + (event.key === "ArrowDown" ? 1 : -1));
      } else if (event.key === "Enter" && found.length) {
        hits.children[at].click();
      } else if (event.key === "Escape") {
        box.value = "";
        search();
        close();
      }
    }
  });

  const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (remembered) document.documentElement.dataset.theme = remembered;
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* a page from a file may not remember */ }
  });
})();
