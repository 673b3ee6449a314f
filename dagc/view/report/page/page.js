"use strict";
(() => {
  const root = document.documentElement;
  const make = (name, words, cls) => {
    const node = document.createElement(name);
    if (words) node.textContent = words;
    if (cls) node.className = cls;
    return node;
  };
  const button = (words, label, act) => {
    const node = make("button", words);
    node.type = "button";
    node.setAttribute("aria-label", label);
    node.addEventListener("click", act);
    return node;
  };

  // Tooltips: what a browser shows late and only to a mouse, shown at once and on focus too.
  const tip = make("div", "", "tip");
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  for (const title of document.querySelectorAll("svg title")) {
    const owner = title.parentNode;
    owner.dataset.tip = title.textContent;
    owner.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  const show = (node, x, y) => {
    tip.textContent = node.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = (y + box.height + 24 > innerHeight ? Math.max(4, y - box.height - 10) : y + 16) + "px";
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const node = event.target.closest && event.target.closest("[data-tip]");
    if (node) show(node, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("focusin", (event) => {
    if (!event.target.matches("[data-tip]:focus-visible")) return;
    const box = event.target.getBoundingClientRect();
    show(event.target, box.left + box.width / 2, box.bottom - 10);
  });
  document.addEventListener("focusout", hide);

  // Pan and zoom: buttons, Ctrl and the wheel, dragging, and the keys + - 0 and arrows.
  for (const frame of document.querySelectorAll("[data-zoom]")) {
    const svg = frame.querySelector("svg");
    const whole = svg.getAttribute("viewBox").split(" ").map(Number);
    let view = whole.slice();
    const apply = () => {
      view[2] = Math.min(whole[2], Math.max(whole[2] / 200, view[2]));
      view[3] = view[2] * whole[3] / whole[2];
      for (const k of [0, 1]) view[k] = Math.max(whole[k], Math.min(view[k], whole[k] + whole[k + 2] - view[k + 2]));
      svg.setAttribute("viewBox", view.join(" "));
      svg.classList.toggle("grab", view[2] < whole[2]);
    };
    const zoom = (factor, fx, fy) => {
      const width = Math.min(whole[2], view[2] / factor);
      view[0] += (view[2] - width) * fx;
      view[1] += (view[3] - width * whole[3] / whole[2]) * fy;
      view[2] = width;
      apply();
    };
    const move = (x, y) => { view[0] += x * view[2]; view[1] += y * view[3]; apply(); };
    const fit = () => { view = whole.slice(); apply(); };
    const tools = make("div", "", "tools");
    tools.append(
      button("+", "zoom in", () => zoom(1.5, 0.5, 0.5)),
      button("\u2212", "zoom out", () => zoom(1 / 1.5, 0.5, 0.5)),
      button("fit", "show all", fit),
    );
    frame.prepend(tools);
    if (svg.classList.contains("layer")) frame.scrollLeft = (frame.scrollWidth - frame.clientWidth) / 2;
    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    let held = null;
    svg.addEventListener("pointerdown", (event) => {
      if (view[2] >= whole[2]) return;
      held = [event.clientX, event.clientY];
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (!held) return;
      const box = svg.getBoundingClientRect();
      move((held[0] - event.clientX) / box.width, (held[1] - event.clientY) / box.height);
      held = [event.clientX, event.clientY];
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });
    frame.addEventListener("keydown", (event) => {
      const acts = {
        "+": () => zoom(1.5, 0.5, 0.5), "=": () => zoom(1.5, 0.5, 0.5), "-": () => zoom(1 / 1.5, 0.5, 0.5), "0": fit,
        ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1),
      };
      const arrow = event.key.startsWith("Arrow");
      if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey || (arrow && view[2] >= whole[2])) return;
      event.preventDefault();
      acts[event.key]();
    });
  }

  // Where one is: the last section whose head has passed below the navigation; at the very end the last one.
  const ways = document.querySelector(".ways");
  const stops = ways ? [...ways.querySelectorAll("a")].map((link) => [link, document.getElementById(link.hash.slice(1))]) : [];
  let current = null;
  const mark = () => {
    const edge = ways.getBoundingClientRect().bottom + 24;
    const atEnd = innerHeight + scrollY >= root.scrollHeight - 2 && scrollY > 0;
    const passed = stops.filter(([, section]) => section.getBoundingClientRect().top <= edge);
    const found = atEnd ? stops[stops.length - 1] : passed[passed.length - 1];
    const link = found ? found[0] : null;
    if (link === current) return;
    if (current) current.removeAttribute("aria-current");
    current = link;
    if (!link) return;
    link.setAttribute("aria-current", "true");
    ways.scrollLeft = link.offsetLeft - (ways.clientWidth - link.offsetWidth) / 2;
  };
  if (stops.length) {
    let asked = 0;
    const soon = () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(mark); };
    for (const happens of ["scroll", "resize"]) addEventListener(happens, soon, { passive: true });
    mark();
  }

  // GPU maps: buttons that change what the colours mean, GPUs of the same number outlined together, arrow keys from GPU to GPU.
  for (const map of document.querySelectorAll(".gpu-map")) {
    const panels = [...map.querySelectorAll("[data-by]")];
    const cells = [...map.querySelectorAll("[data-at]")].map((node) => {
      const plate = node.querySelector("rect");
      const [x, y] = ["x", "y"].map((name) => Number(plate.getAttribute(name)));
      return { node, plate, x, y, at: node.dataset.at.split(" "), num: node.querySelector(".num"), value: "" };
    });
    let alike = new Map();
    let outlined = [];
    const outline = (number) => {
      for (const cell of outlined) cell.plate.classList.remove("same");
      outlined = alike.get(number) || [];
      for (const cell of outlined) cell.plate.classList.add("same");
    };
    const colour = (which) => {
      outline(null);
      alike = new Map();
      for (const cell of cells) {
        const value = cell.at[which], numbered = /^[0-9]/.test(value);
        cell.value = value;
        cell.plate.setAttribute("class", numbered ? "g" + value % 8 : value);
        cell.node.classList.toggle("soft", !numbered);
        if (cell.num) cell.num.textContent = numbered && value.length <= map.dataset.digits ? value : "";
        if (numbered && !alike.has(value)) alike.set(value, []);
        if (numbered) alike.get(value).push(cell);
      }
      panels.forEach((panel, k) => { panel.hidden = k !== which; });
      buttons.forEach((one, k) => { one.setAttribute("aria-pressed", k === which); });
    };
    const buttons = panels.map((panel, k) => {
      const name = panel.dataset.by.replace("-", " ");
      return button(name, "colour by " + name, () => colour(k));
    });
    const tools = make("div", "", "colours");
    tools.setAttribute("role", "group");
    tools.setAttribute("aria-label", "what the colours mean");
    tools.append(make("span", "colour by", "soft"), ...buttons);
    map.prepend(tools);
    colour(0);
    const home = new Map(cells.map((cell) => [cell.node, cell]));
    for (const cell of cells) cell.node.tabIndex = -1;
    if (cells.length) cells[0].node.tabIndex = 0;
    map.addEventListener("pointerover", (event) => {
      const cell = home.get(event.target.closest("[data-at]"));
      outline(cell ? cell.value : null);
    });
    map.addEventListener("pointerleave", () => outline(null));
    map.addEventListener("focusin", (event) => {
      const cell = home.get(event.target);
      if (cell) outline(cell.value);
    });
    const column = (cell, down) => cells
      .filter((other) => other.x === cell.x && (other.y - cell.y) * down > 0)
      .sort((a, b) => (a.y - b.y) * down)[0];
    map.addEventListener("keydown", (event) => {
      const k = cells.findIndex((cell) => cell.node === event.target);
      const next = {
        ArrowLeft: () => cells[k - 1], ArrowRight: () => cells[k + 1],
        ArrowUp: () => column(cells[k], -1), ArrowDown: () => column(cells[k], 1),
      };
      if (k < 0 || !next[event.key]) return;
      event.preventDefault();
      const to = next[event.key]();
      if (!to) return;
      cells[k].node.tabIndex = -1;
      to.node.tabIndex = 0;
      to.node.focus();
    });
  }

  // Folding all at once, and light or dark by choice.
  const folds = [...document.querySelectorAll("details")];
  const foldAll = button("fold all", "fold or unfold every section", () => {
    const open = folds.some((d) => d.open);
    for (const d of folds) d.open = !open;
    foldAll.textContent = open ? "unfold all" : "fold all";
  });
  const theme = button("light / dark", "switch between light and dark", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  const bar = make("div", "", "bar");
  bar.append(foldAll);
  if (document.querySelector("meta[name=color-scheme]").content === "light dark") bar.append(theme);
  document.body.prepend(bar);

  // Paper shows everything, but the tables that repeat a figure.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds.filter((d) => !d.open && !d.classList.contains("raw"));
    for (const d of closed) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });
  root.dataset.ready = "yes";
})();
