"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
  const say = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    say();
  });
  prefersDark.addEventListener("change", say);
  say();

  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);
  let shown = null;

  const hide = () => {
    tip.hidden = true;
    if (shown) shown.cursor.remove();
    shown = null;
  };

  const line = (tag, text) => {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  };

  // Everything at the same place on x is told together: all percentiles of one second, all servers at one load.
  const show = (plot, points, index) => {
    hide();
    const [x, y, , head] = points[index];
    const together = points.filter((point) => Math.abs(point[0] - x) < 0.6);
    tip.replaceChildren(line("strong", head), ...together.slice(0, 12).map((point) => line("span", (point[3] === head ? "" : point[3] + " · ") + point[4])));
    tip.hidden = false;
    const box = plot.getBoundingClientRect();
    const scale = box.width / plot.viewBox.baseVal.width;
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("cx", x);
    cursor.setAttribute("cy", y);
    cursor.setAttribute("r", 8);
    cursor.setAttribute("fill", "none");
    plot.append(cursor);
    const left = box.left + x * scale;
    const top = box.top + y * scale;
    const fits = (value, size, room) => Math.max(6, Math.min(value, room - size - 6));
    const above = top - tip.offsetHeight - 14;
    tip.style.left = `${fits(left - tip.offsetWidth / 2, tip.offsetWidth, root.clientWidth)}px`;
    tip.style.top = `${above > 6 ? above : top + 16}px`;
    shown = { plot, index, cursor };
  };

  for (const plot of document.querySelectorAll("svg[data-points]")) {
    const points = JSON.parse(plot.dataset.points);
    const order = points.map((_, index) => index).sort((a, b) => points[a][0] - points[b][0] || points[a][1] - points[b][1]);
    const nearest = (event) => {
      const box = plot.getBoundingClientRect();
      const scale = box.width / plot.viewBox.baseVal.width;
      const x = (event.clientX - box.left) / scale;
      const y = (event.clientY - box.top) / scale;
      const away = ([px, py]) => (px - x) ** 2 + 0.35 * (py - y) ** 2;
      return points.reduce((best, point, index) => (away(point) < away(points[best]) ? index : best), 0);
    };
    const point = (event) => show(plot, points, nearest(event));
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (event.key === "Escape") hide();
      if (!(event.key in moves)) return;
      event.preventDefault();
      const here = shown && shown.plot === plot ? order.indexOf(shown.index) : event.key in { ArrowLeft: 1, ArrowUp: 1 } ? 0 : -1;
      show(plot, points, order[(here + moves[event.key] + order.length) % order.length]);
    });
  }
  addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("pointerdown", (event) => event.target.closest("svg[data-points]") || hide());
})();
