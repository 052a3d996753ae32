"use strict";
(() => {
  const box = document.getElementById("q"), hits = document.getElementById("hits"), count = document.getElementById("count");
  const MOST = 200;
  const ENDINGS = /(?:ыми|ими|ого|его|ому|ему|ами|ями|иях|иям|ым|им|ых|их|ах|ях|ов|ев|ей|ий|ый|ой|ая|яя|ое|ее|ые|ие|ую|юю|ом|ем|ам|ям|ию|ью|ия|ья|ии|[аеиоуыьэюяй])$/u;
  const plain = (text) => text.toLowerCase().replaceAll("ё", "е");

  // What a word has in common in all its forms: воронки, воронкой → воронк; companies → compan
  function stem(word) {
    if (word.length < 4) return word;
    if (/[а-я]$/u.test(word)) {
      const found = word.replace(/([бвгджзклмнпрстфхцчшщ])[ое]к$/u, "$1к");
      return found !== word ? found : shorter(word, word.replace(ENDINGS, ""));
    }
    return shorter(word, word.replace(/(?:ies|y|ing|ed|es|s)$/, ""));
  }

  function shorter(word, found) {
    return found.length < 3 ? word : found;
  }

  function matches(entry, word) {
    return entry.text.includes(word) || entry.words.includes(` ${stem(word)} `);
  }

  const entries = [...document.querySelectorAll("[data-name]")].map((node) => {
    const about = node.tagName === "TR" ? [...node.cells].slice(1).map((cell) => cell.textContent).filter(Boolean).join(" · ") : node.querySelector(".comment")?.textContent || "";
    const low = plain(node.dataset.name), text = plain(node.dataset.name + " " + (node.dataset.code || "") + " " + about);
    return {id: node.id, name: node.dataset.name, codes: plain(node.dataset.code || "").split(" "), about, low, text, words: " " + text.split(/[^\p{L}\p{N}]+/u).map(stem).join(" ") + " "};
  });
  let found = [], at = 0;

  function rank(entry, whole) {
    const last = entry.low.split(".").pop();
    if (entry.codes.includes(whole)) return 0;
    if (entry.low === whole || last === whole) return entry.low === whole ? 0 : 1;
    if (entry.low.startsWith(whole) || last.startsWith(whole)) return 2;
    return entry.low.includes(whole) ? 3 : 4;
  }

  function search() {
    const whole = plain(box.value.trim()), words = whole.split(/\s+/).filter(Boolean);
    found = words.length ? entries.filter((entry) => words.every((word) => matches(entry, word))) : [];
    found = found.map((entry) => [rank(entry, whole), entry]).sort((one, two) => one[0] - two[0]).map((pair) => pair[1]);
    at = 0;
    count.textContent = words.length ? count.dataset.found.replace("{}", found.length) : "";
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

  // The diagram: buttons, Ctrl and the wheel zoom around the middle or the pointer; a drag moves it
  const canvas = document.getElementById("canvas"), drawing = canvas.querySelector("svg");
  const own = drawing.viewBox.baseVal.width;
  let scale = 1;

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const before = scale;
    scale = factor ? Math.min(4, Math.max(0.1, scale * factor)) : canvas.clientWidth / own;
    drawing.style.width = own * scale + "px";
    drawing.style.height = "auto";
    drawing.style.maxWidth = "none";
    canvas.scrollLeft = (canvas.scrollLeft + x) * scale / before - x;
    canvas.scrollTop = (canvas.scrollTop + y) * scale / before - y;
  }

  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => zoom(Number(button.dataset.zoom))));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const place = canvas.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - place.left, event.clientY - place.top);
  }, {passive: false});
  canvas.addEventListener("keydown", (event) => {
    const factor = {"+": 1.25, "=": 1.25, "-": 0.8, "0": 0}[event.key];
    if (factor === undefined || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    zoom(factor);
  });
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) held = {x: event.clientX + canvas.scrollLeft, y: event.clientY + canvas.scrollTop};
  });
  addEventListener("pointermove", (event) => {
    if (!held) return;
    canvas.scrollTo(held.x - event.clientX, held.y - event.clientY);
  });
  addEventListener("pointerup", () => { held = null; });

  const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (remembered) document.documentElement.dataset.theme = remembered;
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* a page from a file may not remember */ }
  });
})();
