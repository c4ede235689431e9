"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  // Everything that comes from data goes through textContent: a name is text, whatever it looks like.
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // --- sorting: numbers by value, else by text; what has none comes last ---
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    const original = [...body.rows];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.classList.contains("text") ? "ascending" : "descending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = before === "none" ? first : before === first ? second : "none";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[column], value = cell.dataset.value;
        return head.classList.contains("text") ? cell.textContent : value ? Number(value) : null;
      };
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true }));
      };
      body.append(...(now === "none" ? original : [...original].sort(compare)));
    }));
  }

  // --- filtering: what names another method, backbone or protocol is hidden; what names none stays ---
  const filters = document.getElementById("filters"), redraw = [];
  const wanted = () => Object.fromEntries(new FormData(filters));
  const fits = (about, axes = ["method", "backbone", "protocol"]) => {
    const chosen = wanted();
    return axes.every((axis) => !chosen[axis] || !about[axis] || about[axis] === chosen[axis]
      || (axis === "backbone" && about[axis] === "any backbone"));
  };
  const filter = () => {
    for (const node of all("tbody tr[data-method], .tile, .drawing")) node.hidden = !fits(node.dataset);
    for (const board of all(".board")) {
      board.hidden = !fits(board.dataset, ["backbone", "protocol"]) || !all("tbody tr", board).some((row) => !row.hidden);
    }
    const rows = all("#leaderboard tbody tr"), left = rows.filter((row) => !row.hidden && !row.closest(".board").hidden);
    document.getElementById("counted").textContent = left.length < rows.length ? `${left.length} of ${rows.length} rows` : "";
    redraw.forEach((draw) => draw());
  };
  filters.addEventListener("change", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());

  // --- the gallery: search every image, show those with a picture ---
  const NONE = 255, MOST = 50;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  for (const gallery of all(".gallery")) {
    const source = gallery.querySelector("script.index");
    if (!source) continue;
    const index = JSON.parse(source.textContent), number = gallery.dataset.gallery;
    const labels = new Int32Array(bytes(index.labels).buffer), shown = new Set(index.shown);
    for (const entry of index.entries) {
      entry.iou = bytes(entry.iou);
      entry.error = bytes(entry.error);
      entry.prediction = new Int16Array(bytes(entry.prediction).buffer);
    }
    const className = (label) => index.classes[label] ?? String(label);
    const found = index.ids.map((id, at) => `${id}\n${className(labels[at])}`.toLowerCase());
    const form = gallery.querySelector(".search"), results = gallery.querySelector(".results");
    const about = (entry) => ({ ...entry, backbone: entry.backbone === "-" ? "" : entry.backbone });

    const summary = (entries) => index.ids.map((_, at) => {
      const values = entries.map((entry) => entry.iou[at]).filter((value) => value !== NONE);
      if (!values.length) return index.boxes ? null : { mean: NaN, low: NaN, high: NaN };
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      return { mean, low: Math.min(...values), high: Math.max(...values) };
    });
    const detail = (at, entries) => {
      const box = make("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": `Methods on ${index.ids[at]}` });
      const table = make("table"), head = make("tr"), body = make("tbody");
      for (const title of ["method", "backbone", "protocol", "IoU", "error", "predicted class"]) head.append(make("th", title, { scope: "col", class: "text" }));
      for (const entry of entries) {
        const row = make("tr"), iou = entry.iou[at], error = index.errors[entry.error[at]], predicted = entry.prediction[at];
        row.append(make("th", entry.label, { scope: "row", class: "text" }));
        const cells = [entry.backbone, entry.protocol, iou === NONE ? "-" : (iou / 100).toFixed(2), error ?? "-", predicted < 0 ? "-" : className(predicted)];
        for (const text of cells) row.append(make("td", text, { class: "text" }));
        body.append(row);
      }
      const top = make("thead");
      top.append(head);
      table.append(top, body);
      box.append(table);
      return box;
    };
    let searched = false;
    const search = () => {
      const { text, order = "" } = Object.fromEntries(new FormData(form));
      results.replaceChildren();
      form.querySelector("output").textContent = "";
      if (!text.trim() && !order) return;
      searched = true;
      const entries = index.entries.filter((entry) => fits(about(entry))), known = summary(entries);
      const query = text.trim().toLowerCase();
      const hits = [];
      for (let at = 0; at < found.length; at++) if (found[at].includes(query) && known[at]) hits.push(at);
      const key = { best: (at) => -known[at].mean, worst: (at) => known[at].mean, spread: (at) => known[at].low - known[at].high }[order];
      if (key) hits.sort((a, b) => key(a) - key(b) || a - b);
      form.querySelector("output").textContent = `${hits.length} of ${index.ids.length} images` + (hits.length > MOST ? `, the first ${MOST} are listed` : "");
      if (!hits.length) return;
      const box = make("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Images found" });
      const table = make("table"), top = make("thead"), head = make("tr"), body = make("tbody");
      for (const [title, kind] of [["id", "text"], ["class", "text"], ["mean IoU", ""], ["lowest", ""], ["highest", ""], ["", "text"]]) {
        head.append(title ? make("th", title, { scope: "col", class: kind }) : make("td"));
      }
      for (const at of hits.slice(0, MOST)) {
        const row = make("tr"), values = known[at], last = make("td", undefined, { class: "text" });
        row.append(make("th", index.ids[at], { scope: "row", class: "text" }), make("td", className(labels[at]), { class: "text" }));
        for (const value of [values.mean, values.low, values.high]) row.append(make("td", isNaN(value) ? "-" : (value / 100).toFixed(2)));
        const button = make("button", "methods", { type: "button", "aria-expanded": "false", "aria-label": `methods on ${index.ids[at]}` });
        button.addEventListener("click", () => {
          const open = button.getAttribute("aria-expanded") === "true";
          button.setAttribute("aria-expanded", String(!open));
          if (open) return row.nextElementSibling.remove();
          const below = make("tr"), cell = make("td", undefined, { colspan: "6", class: "text" });
          cell.append(detail(at, entries));
          below.append(cell);
          row.after(below);
        });
        last.append(button);
        if (shown.has(at) && document.getElementById(`card${number}-${at}`)) {
          const link = make("a", "picture", { href: `#card${number}-${at}`, "aria-label": `picture of ${index.ids[at]}` });
          link.addEventListener("click", () => { document.getElementById(`card${number}-${at}`).open = true; });
          last.append(" ", link);
        }
        row.append(last);
        body.append(row);
      }
      top.append(head);
      table.append(top, body);
      box.append(table);
      results.append(box);
    };
    form.addEventListener("input", search);
    form.addEventListener("submit", (event) => { event.preventDefault(); search(); });
    redraw.push(() => searched && search());
    gallery.querySelector("input[type=range]")?.addEventListener("input", (event) => gallery.style.setProperty("--map", event.target.value / 100));
  }
})();
