"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const svg = byId("drawing");
  const view = byId("view");
  const about = byId("about");
  const SPACE = "http://www.w3.org/2000/svg";
  const GAP_X = 22, GAP_Y = 40, PAD = 16, HEAD = 30, LANE = 8, FIRST_BOXES = 26, WIDEST = 210, PAPER = 690;

  // -- what is drawn: a tree of boxes -------------------------------------------------------------------------------
  const boxes = new Map();
  const parents = new Map();
  const opened = new Set();
  let root = null;
  let chosen = null;

  const inner = (box) => box.children || [];
  const gather = (box, parent, makes) => {
    boxes.set(box.id, box);
    parents.set(box.id, parent);
    const own = box.kind === "body" ? new Map() : makes;
    if (box.kind === "body") own.outer = makes;
    for (const child of inner(box)) gather(child, box, own);
    if (box.kind === "op" || box.kind === "input") for (const tensor of box.outputs) makes.set(tensor.name, box);
    box.makes = makes;
  };
  const maker = (box, name) => {
    for (let makes = box.makes; makes; makes = makes.outer) if (makes.has(name)) return makes.get(name);
    return null;
  };
  const sums = (box) => {
    const total = { operations: 0, cost: [0, 0, 0], unknown: 0 };
    if (box.kind === "op") {
      total.operations = 1;
      if (box.cost) box.cost.forEach((value, place) => { total.cost[place] += value; });
      else total.unknown = 1;
    }
    for (const child of inner(box)) {
      const more = sums(child);
      total.operations += more.operations;
      total.unknown += more.unknown;
      more.cost.forEach((value, place) => { total.cost[place] += value; });
    }
    box.sum = total;
    return total;
  };

  // -- numbers for people -------------------------------------------------------------------------------------------
  const scaled = (value, base, symbols) => {
    let step = 0;
    while (value >= base && step < symbols.length - 1) { value /= base; step += 1; }
    const digits = value >= 100 || step === 0 ? 0 : value >= 10 ? 1 : 2;
    return `${value.toFixed(digits)} ${symbols[step]}`.trim();
  };
  const many = (count) => `${count} operation${count === 1 ? "" : "s"}`;
  const flops = (value) => scaled(value, 1000, ["", "k", "M", "G", "T"]);
  const bytes = (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB"]);

  // -- sizes and places: rows are given, how wide boxes are depends on what is open ---------------------------------
  const ruler = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  const width = (text, size, weight) => { ruler.font = `${weight || 400} ${size}px ${family}`; return ruler.measureText(text).width; };
  const cut = (text, size, room, weight) => {
    if (width(text, size, weight) <= room) return text;
    let low = 1, high = text.length;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (width("…" + text.slice(-middle), size, weight) <= room) low = middle; else high = middle - 1;
    }
    return "…" + text.slice(-low);
  };
  const isOpen = (box) => inner(box).length > 0 && opened.has(box.id);

  // Places as near as they get to the wanted ones, in order and apart: neighbours that collide share a mean.
  const spread = (wanted, widths) => {
    const blocks = [];
    let offset = 0;
    const offsets = widths.map((wide) => { const here = offset; offset += wide; return here; });
    wanted.forEach((want, place) => {
      blocks.push({ sum: want - offsets[place], count: 1, first: place });
      while (blocks.length > 1) {
        const last = blocks[blocks.length - 1], before = blocks[blocks.length - 2];
        if (before.sum / before.count <= last.sum / last.count) break;
        before.sum += last.sum;
        before.count += last.count;
        blocks.pop();
      }
    });
    const placed = [];
    for (const block of blocks) for (let k = 0; k < block.count; k += 1) placed.push(block.sum / block.count + offsets[block.first + k]);
    return placed;
  };

  const measure = (box) => {
    box.lines = box.kind === "op"
      ? [[box.type, "type"], [box.name, ""], [box.outputs[0] ? box.outputs[0].text : "", "quiet"]]
      : box.kind === "input" || box.kind === "output"
        ? [[box.kind, "type"], [box.name, ""], [box.outputs[0].text, "quiet"]]
        : [[box.name || box.kind, "type"], [many(box.sum.operations), "quiet"], [box.sum.cost[0] ? `${flops(box.sum.cost[0])} FLOPs` : "", "quiet"]];
    if (inner(box).length && box.kind === "op") box.lines[2] = [`${many(box.sum.operations - 1)} inside`, "quiet"];
    box.lines = box.lines.filter(([text]) => text).map(([text, kind]) => [cut(text, kind === "type" ? 12.5 : 12, WIDEST - 20, kind === "type" ? 600 : 400), kind]);
    const sign = inner(box).length ? 36 : 20;
    box.w = Math.max(70, ...box.lines.map(([text, kind]) => width(text, kind === "type" ? 12.5 : 12, kind === "type" ? 600 : 400) + sign));
    box.h = 10 + 15 * box.lines.length;
    if (!isOpen(box) && box !== root) return;
    const children = inner(box);
    children.forEach(measure);
    const rows = box.rows;
    const wide = (item) => (item < 0 ? LANE : children[item].w) + GAP_X;
    const rowOf = new Map();
    rows.forEach((row, number) => row.forEach((item) => { if (item >= 0) rowOf.set(item, number); }));
    const near = rows.map(() => new Map());
    const join = (row, item, other) => { if (!near[row].has(item)) near[row].set(item, []); near[row].get(item).push(other); };
    box.lanes = box.edges.map(([from, to], number) => {
      const upper = rowOf.get(from) <= rowOf.get(to) ? from : to, lower = upper === from ? to : from;
      const first = rowOf.get(upper), last = rowOf.get(lower);
      const lanes = [];
      for (let row = first + 1; row < last; row += 1) if (rows[row].includes(-number - 1)) lanes.push([-number - 1, row]);
      const chain = lanes.length || last - first <= 1 ? [[upper, first], ...lanes, [lower, last]] : [];
      for (let step = 1; step < chain.length; step += 1) {
        join(chain[step][1], chain[step][0], [chain[step - 1][0], chain[step - 1][1]]);
        join(chain[step - 1][1], chain[step - 1][0], [chain[step][0], chain[step][1]]);
      }
      return { chain, upper, lower };
    });
    // A lane has one place in every row: its number alone does not tell them apart.
    const at = new Map();
    const key = (item, row) => (item < 0 ? `${item}/${row}` : `${item}`);
    rows.forEach((row, number) => row.forEach((item) => at.set(key(item, number), 0)));
    rows.forEach((row, number) => {
      const whole = row.reduce((sum, item) => sum + wide(item), 0);
      let x = -whole / 2;
      row.forEach((item) => { at.set(key(item, number), x + wide(item) / 2); x += wide(item); });
    });
    for (let sweep = 0; sweep < 10; sweep += 1) {
      const order = rows.map((_, number) => (sweep % 2 ? rows.length - 1 - number : number));
      for (const number of order) {
        const row = rows[number];
        const wanted = row.map((item) => {
          const others = near[number].get(item) || [];
          return others.length ? others.reduce((sum, [other, there]) => sum + at.get(key(other, there)), 0) / others.length : at.get(key(item, number));
        });
        const halves = row.map((item) => wide(item) / 2);
        const steps = row.map((_, k) => (k + 1 < row.length ? halves[k] + halves[k + 1] : 0));
        spread(wanted, steps).forEach((x, k) => at.set(key(row[k], number), x));
      }
    }
    let y = box === root ? 0 : HEAD;
    box.tops = [];
    box.bottoms = [];
    rows.forEach((row, number) => {
      const high = Math.max(8, ...row.filter((item) => item >= 0).map((item) => children[item].h));
      row.forEach((item) => {
        if (item < 0) return;
        children[item].x = at.get(key(item, number)) - children[item].w / 2;
        children[item].y = y + (high - children[item].h) / 2;
      });
      box.tops.push(y);
      box.bottoms.push(y + high);
      y += high + GAP_Y;
    });
    box.laneAt = (item, row) => at.get(key(item, row));
    const left = Math.min(...children.map((child) => child.x), ...[...at].filter(([name]) => name.startsWith("-")).map(([, x]) => x));
    const right = Math.max(...children.map((child) => child.x + child.w), ...[...at].filter(([name]) => name.startsWith("-")).map(([, x]) => x));
    box.shift = PAD - left;
    children.forEach((child) => { child.x += box.shift; });
    box.w = Math.max(box.w + 30, right - left + 2 * PAD);
    const slack = (box.w - (right - left + 2 * PAD)) / 2;
    if (slack > 0) { children.forEach((child) => { child.x += slack; }); box.shift += slack; }
    box.h = y - GAP_Y + PAD;
  };

  // -- drawing ------------------------------------------------------------------------------------------------------
  const make = (tag, attributes, parent, text) => {
    const made = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const classOf = (box) => (box.kind === "op" && !inner(box).length ? box.class : box.kind === "input" || box.kind === "output" ? "ends" : "group");

  const line = (points) => {
    let path = `M${points[0][0].toFixed(1)} ${points[0][1].toFixed(1)}`;
    for (let step = 1; step < points.length; step += 1) {
      const [x0, y0] = points[step - 1], [x1, y1] = points[step];
      const bend = Math.max(8, Math.abs(y1 - y0) / 2) * (y1 >= y0 ? 1 : -1);
      path += Math.abs(x1 - x0) < 0.5 && y1 >= y0 ? `L${x1.toFixed(1)} ${y1.toFixed(1)}` : `C${x0.toFixed(1)} ${(y0 + bend).toFixed(1)} ${x1.toFixed(1)} ${(y1 - bend).toFixed(1)} ${x1.toFixed(1)} ${y1.toFixed(1)}`;
    }
    return path;
  };

  const drawEdges = (box, into) => {
    const children = inner(box);
    const outs = new Map(), ins = new Map();
    box.edges.forEach(([from, to], number) => {
      if (!outs.has(from)) outs.set(from, []);
      if (!ins.has(to)) ins.set(to, []);
      outs.get(from).push(number);
      ins.get(to).push(number);
    });
    const ahead = (number, item) => {
      const { chain } = box.lanes[number];
      const place = chain.findIndex(([other]) => other === item);
      const next = chain[place + 1] || chain[place - 1];
      return next ? (next[0] < 0 ? box.laneAt(next[0], next[1]) + box.shift : children[next[0]].x + children[next[0]].w / 2) : 0;
    };
    for (const list of [outs, ins]) for (const [item, numbers] of list) numbers.sort((a, b) => ahead(a, item) - ahead(b, item));
    const port = (list, item, number) => {
      const numbers = list.get(item), child = children[item];
      return child.x + child.w * (numbers.indexOf(number) + 1) / (numbers.length + 1);
    };
    box.edges.forEach(([from, to, label], number) => {
      const { chain, upper } = box.lanes[number];
      const down = upper === from;
      const start = [port(outs, from, number), children[from].y + children[from].h];
      const end = [port(ins, to, number), children[to].y - 5];
      const lanes = chain.filter(([item]) => item < 0).flatMap(([item, row]) => {
        const x = box.laneAt(item, row) + box.shift;
        return [[x, box.tops[row]], [x, box.bottoms[row]]];
      });
      if (!down) lanes.reverse();
      const edge = make("path", { class: chain.length ? "edge" : "edge far", d: line([start, ...lanes, end]), "marker-end": "url(#arrow)" }, into);
      edge.ends = [children[from].id, children[to].id];
      if (label) {
        const next = lanes[0] || end;
        make("text", { class: "label", x: ((start[0] + next[0]) / 2).toFixed(1), y: ((start[1] + next[1]) / 2 + 3).toFixed(1), "text-anchor": "middle" }, into, label);
      }
    });
  };
  const drawBox = (box, into) => {
    const open = isOpen(box);
    const group = make("g", { class: `box ${classOf(box)}${open ? " opened" : ""}`, transform: `translate(${box.x.toFixed(1)} ${box.y.toFixed(1)})` }, into);
    group.dataset.id = box.id;
    box.element = group;
    const round = inner(box).length ? 10 : 5;
    make("rect", { width: box.w.toFixed(1), height: box.h.toFixed(1), rx: round }, group);
    make("title", {}, group, (box.full || box.name || box.kind) + (box.reason ? `\nnot counted: ${box.reason}` : ""));
    if (open) {
      make("text", { class: "type", x: 12, y: 20 }, group, "− " + cut(box.type ? `${box.type} ${box.name}` : box.name, 12.5, box.w - 36, 600));
      drawEdges(box, group);
      for (const child of inner(box)) drawBox(child, group);
    } else {
      box.lines.forEach(([text, kind], place) => make("text", { class: kind, x: (box.w / 2).toFixed(1), y: 18 + 15 * place, "text-anchor": "middle" }, group, (place === 0 && inner(box).length ? "+ " : "") + text));
    }
  };

  const draw = () => {
    measure(root);
    view.replaceChildren();
    const defs = make("defs", {}, view);
    const arrow = make("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 4, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" }, defs);
    make("path", { id: "tip", d: "M0 0L8 4L0 8Z" }, arrow);
    root.x = 0;
    root.y = 0;
    drawEdges(root, view);
    for (const child of inner(root)) drawBox(child, view);
    mark();
  };

  const mark = () => {
    for (const element of view.querySelectorAll(".chosen")) element.classList.remove("chosen");
    if (chosen && chosen.element && chosen.element.isConnected) chosen.element.classList.add("chosen");
    for (const edge of view.querySelectorAll(".edge")) edge.classList.toggle("near", chosen !== null && edge.ends.includes(chosen.id));
  };

  // -- moving and zooming -------------------------------------------------------------------------------------------
  let shift = [0, 0], zoom = 1;
  const apply = () => view.setAttribute("transform", `translate(${shift[0]} ${shift[1]}) scale(${zoom})`);
  const zoomAt = (x, y, factor) => {
    const next = Math.min(4, Math.max(0.02, zoom * factor));
    shift = [x - (x - shift[0]) * next / zoom, y - (y - shift[1]) * next / zoom];
    zoom = next;
    apply();
  };
  const fit = () => {
    const box = svg.getBoundingClientRect();
    const whole = Math.min(box.width / root.w, box.height / root.h);
    // A long chain is read from its beginning, not as a thread.
    zoom = Math.max(Math.min(whole * 0.96, 1.2), Math.min(0.85, (box.width / root.w) * 0.96));
    shift = [(box.width - root.w * zoom) / 2, whole * 0.96 >= zoom ? Math.max(8, (box.height - root.h * zoom) / 2) : 12];
    apply();
  };
  const fitWhole = () => {
    const box = svg.getBoundingClientRect();
    zoom = Math.min(1.2, 0.96 * Math.min(box.width / root.w, box.height / root.h));
    shift = [(box.width - root.w * zoom) / 2, Math.max(4, (box.height - root.h * zoom) / 2)];
    apply();
  };
  const absolute = (box) => {
    let x = 0, y = 0;
    for (let at = box; at && at !== root; at = parents.get(at.id)) { x += at.x; y += at.y; }
    return [x, y];
  };
  const show = (box) => {
    const [x, y] = absolute(box);
    const frame = svg.getBoundingClientRect();
    if (zoom < 0.5) zoom = 0.9;
    shift = [frame.width / 2 - (x + box.w / 2) * zoom, frame.height / 2 - (y + Math.min(box.h, 200) / 2) * zoom];
    apply();
  };

  const pointers = new Map();
  let moved = 0, pressed = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 1) { moved = 0; pressed = event.target.closest(".box"); }
    svg.setPointerCapture(event.pointerId);
    svg.classList.add("dragged");
  });
  svg.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    if (others.length) {
      const [other] = others;
      const away = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      const frame = svg.getBoundingClientRect();
      shift = [shift[0] + (now[0] - before[0]) / 2, shift[1] + (now[1] - before[1]) / 2];
      if (away(before) > 4) zoomAt((now[0] + other[0]) / 2 - frame.left, (now[1] + other[1]) / 2 - frame.top, away(now) / away(before));
      moved += 99;
    } else {
      moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (moved > 4) { shift = [shift[0] + now[0] - before[0], shift[1] + now[1] - before[1]]; apply(); }
    }
    pointers.set(event.pointerId, now);
  });
  const lift = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (!pointers.size) svg.classList.remove("dragged");
    if (event.type === "pointerup" && moved <= 4 && !pointers.size) click(pressed);
  };
  svg.addEventListener("pointerup", lift);
  svg.addEventListener("pointercancel", lift);
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = svg.getBoundingClientRect();
    zoomAt(event.clientX - frame.left, event.clientY - frame.top, Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
  }, { passive: false });
  const middle = (factor) => { const frame = svg.getBoundingClientRect(); zoomAt(frame.width / 2, frame.height / 2, factor); };
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (step) { shift = [shift[0] + step[0], shift[1] + step[1]]; apply(); }
    else if (event.key === "+" || event.key === "=") middle(1.25);
    else if (event.key === "-") middle(0.8);
    else if (event.key === "0") fitWhole();
    else if (event.key === "Enter" && chosen && inner(chosen).length) toggle(chosen);
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault();
  });

  // -- opening, choosing, telling -----------------------------------------------------------------------------------
  const toggle = (box) => {
    const [x, y] = absolute(box);
    const held = [shift[0] + x * zoom, shift[1] + y * zoom];
    if (opened.has(box.id)) opened.delete(box.id); else opened.add(box.id);
    draw();
    const [left, top] = absolute(box);
    shift = [held[0] - left * zoom, held[1] - top * zoom];
    apply();
  };
  const click = (element) => {
    if (!element) { choose(null); return; }
    const box = boxes.get(Number(element.dataset.id));
    choose(box);
    if (inner(box).length) toggle(box);
  };
  const element = (tag, text, parent, kind) => {
    const made = document.createElement(tag);
    if (text !== "") made.textContent = text;
    if (kind) made.className = kind;
    if (parent) parent.append(made);
    return made;
  };
  const pairs = (entries, parent) => {
    const list = element("dl", "", parent);
    for (const [name, value] of entries) { element("dt", name, list); element("dd", value, list); }
  };
  const tensors = (title, list, box, parent) => {
    if (!list.length) return;
    element("h3", title, parent);
    const items = element("ul", "", parent);
    for (const tensor of list) {
      const item = element("li", "", items);
      const from = title === "Inputs" ? maker(box, tensor.name) : null;
      if (from) element("button", tensor.name, item).addEventListener("click", () => reveal(from));
      else element("span", tensor.weight || tensor.name, item);
      element("small", tensor.text + (tensor.weight ? ", weight" : ""), item);
    }
  };
  const choose = (box) => {
    chosen = box;
    about.hidden = !box;
    about.replaceChildren();
    mark();
    if (!box) return;
    const shut = element("button", "×", about, "shut");
    shut.setAttribute("aria-label", "Close");
    shut.addEventListener("click", () => choose(null));
    element("h2", box.type || box.name || box.kind, about);
    element("p", box.full || box.name, about);
    const facts = [];
    if (box.kind === "op" && !inner(box).length) {
      if (box.cost) facts.push(["FLOPs", flops(box.cost[0])], ["multiply-adds", flops(box.cost[1])], ["bytes moved", bytes(box.cost[2])]);
      else facts.push(["cost", `not counted: ${box.reason}`]);
      if (box.runs !== undefined) facts.push(["runs", box.runs === null ? "nobody knows how often" : `${box.runs} times, all counted above`]);
    } else if (box.kind !== "input" && box.kind !== "output") {
      facts.push(["operations", String(box.sum.operations)], ["FLOPs", flops(box.sum.cost[0])], ["multiply-adds", flops(box.sum.cost[1])], ["bytes moved", bytes(box.sum.cost[2])]);
      if (box.sum.unknown) facts.push(["not counted", String(box.sum.unknown)]);
      for (const [role, runs] of Object.entries(box.bodies || {})) facts.push([role, runs === null ? "nobody knows how often it runs" : `runs ${runs} times`]);
    }
    pairs(facts, about);
    tensors("Inputs", box.inputs || [], box, about);
    tensors("Outputs", box.outputs || [], box, about);
    const attributes = Object.entries(box.attributes || {});
    if (attributes.length) { element("h3", "Attributes", about); pairs(attributes, about); }
  };
  const reveal = (box) => {
    for (let at = parents.get(box.id); at; at = parents.get(at.id)) opened.add(at.id);
    draw();
    choose(box);
    show(box);
  };

  // -- searching ----------------------------------------------------------------------------------------------------
  const search = byId("search"), found = byId("found");
  search.addEventListener("input", () => {
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    found.replaceChildren();
    const hits = words.length ? [...boxes.values()].filter((box) => {
      const text = `${box.full || box.name} ${box.type || ""}`.toLowerCase();
      return box.kind !== "graph" && words.every((word) => text.includes(word));
    }) : [];
    found.hidden = !words.length;
    for (const box of hits.slice(0, 60)) {
      const button = element("button", box.full || box.name, element("li", "", found));
      if (box.type) element("small", ` ${box.type}`, button);
      button.addEventListener("click", () => { found.hidden = true; reveal(box); });
    }
    if (words.length && !hits.length) element("li", "nothing", found);
    if (hits.length > 60) element("li", `and ${hits.length - 60} more`, found);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; found.hidden = true; }
    if (event.key === "Enter" && found.querySelector("button")) found.querySelector("button").click();
  });

  // -- the page -----------------------------------------------------------------------------------------------------
  const openSome = () => {
    opened.clear();
    // Level by level: all of one, or none, so that what stands side by side is shown alike.
    let level = inner(root), count = level.length;
    while (level.length) {
      const groups = level.filter((box) => inner(box).length && box.kind !== "op");
      const next = groups.flatMap(inner);
      if (!groups.length || count - groups.length + next.length > FIRST_BOXES) break;
      for (const box of groups) opened.add(box.id);
      count += next.length - groups.length;
      level = next;
    }
  };
  const select = (index) => {
    const graph = data.graphs[index];
    boxes.clear();
    parents.clear();
    root = graph.root;
    gather(root, null, new Map());
    sums(root);
    openSome();
    draw();
    fit();
    choose(null);
    const least = graph.least ? "at least " : "";
    byId("facts").textContent = [
      `${data.kind}, ${graph.operations} operations`,
      `${least}${flops(graph.cost[0])} FLOPs, ${flops(graph.cost[1])} multiply-adds`,
      `${data.parameters[0].toLocaleString("en")} parameters in ${bytes(data.parameters[1])}`,
      ...data.notes,
    ].join(" · ");
  };
  const graphs = byId("graphs");
  data.graphs.forEach((graph, index) => { const option = element("option", graph.name, graphs); option.value = index; });
  graphs.hidden = data.graphs.length < 2;
  graphs.addEventListener("change", () => select(Number(graphs.value)));
  byId("fit").addEventListener("click", fitWhole);
  byId("closer").addEventListener("click", () => middle(1.3));
  byId("farther").addEventListener("click", () => middle(1 / 1.3));
  byId("open").addEventListener("click", () => { for (const box of boxes.values()) if (inner(box).length) opened.add(box.id); draw(); fitWhole(); });
  byId("close").addEventListener("click", () => { opened.clear(); draw(); fitWhole(); });
  // On paper there is the whole drawing, as large as it is but not wider than a page, in strips of a row: a browser
  // breaks pages between drawings only.
  addEventListener("beforeprint", () => {
    if (!root) return;
    view.removeAttribute("transform");
    const scale = Math.min(1, PAPER / root.w);
    const cuts = [0, ...root.tops.slice(1).map((top) => top - GAP_Y / 2), root.h];
    for (let row = 1; row < cuts.length; row += 1) {
      const top = cuts[row - 1], high = cuts[row] - top;
      const strip = make("svg", { class: "strip", viewBox: `0 ${top} ${root.w} ${high}`, width: root.w * scale, height: high * scale }, svg.parentNode);
      make("use", { href: "#view" }, strip);
    }
  });
  addEventListener("afterprint", () => {
    for (const strip of document.querySelectorAll(".strip")) strip.remove();
    apply();
  });
  const theme = byId("theme"), page = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (page.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const say = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { page.dataset.theme = isDark() ? "light" : "dark"; say(); });
  dark.addEventListener("change", say);
  say();
  if (data.graphs.length) select(0);
  else byId("facts").textContent = `${data.kind}: no signature computes anything`;
})();
