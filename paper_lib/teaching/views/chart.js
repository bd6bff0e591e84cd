(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 240, LEFT = 48, RIGHT = 14, TOP = 10, BOTTOM = 40;
  const DASHES = { "-": "none", "--": "6 4", ":": "2 3", "-.": "7 3 2 3" };

  const element = (name, text = "", attributes = {}) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  const shape = (name, attributes, text = "") => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  const plain = (value) => {
    if (value === null || value === 0) return value === null ? "" : "0";
    const size = Math.abs(value);
    const text = size < 1e-4 ? value.toExponential(1) : size < 999.5 ? value.toPrecision(3) : value.toFixed(0);
    return text.replaceAll("-", "−");
  };

  // From a value to its place between two ends, on the scale of one letter of the panel's axes.
  const scaled = (about, letter, from, to) => {
    const scale = about.log.includes(letter) ? Math.log : Number;
    const [low, high] = about[`${letter}lim`].map(scale);
    return (value) => from + ((scale(value) - low) / (high - low || 1)) * (to - from);
  };

  function drawn(each, x, y) {
    const group = shape("g", { class: each.chosen ? "chosen" : "" });
    group.style.setProperty("--run", each.color);
    const points = each.mean.map((value, n) => [x(each.x[n]), y(value)]);
    const known = each.low.every((value) => value !== null);
    const ends = (side) => each[side].map((value, n) => `${x(each.x[n])},${y(value)}`);
    if (each.dashes && each.chosen && known) {
      group.append(shape("polygon", { class: "band", points: [...ends("high"), ...ends("low").reverse()].join(" ") }));
    }
    if (each.dashes) {
      group.append(shape("polyline", { class: "path", points: points.join(" "), "stroke-dasharray": DASHES[each.dashes] }));
    }
    for (const [n, [cx, cy]] of points.entries()) {
      if (!each.dashes && known) {
        group.append(shape("line", { class: "path", x1: cx, x2: cx, y1: y(each.low[n]), y2: y(each.high[n]) }));
      }
      if (each.chosen || !each.dashes) group.append(shape("circle", { class: "dot", cx, cy, r: 3.5 }));
    }
    return group;
  }

  function picture(about, marks, width) {
    const x = scaled(about, "x", LEFT, width - RIGHT), y = scaled(about, "y", HEIGHT - BOTTOM, TOP);
    const words = `${about.axes[1]} against ${about.axes[0]}`;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${about.title}: ${words}` });
    svg.style.maxWidth = `${width}px`;
    for (const [value, text] of about.yticks) {
      svg.append(
        shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
        shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, text),
      );
    }
    for (const [value, text] of about.xticks) {
      svg.append(shape("text", { x: x(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, text));
    }
    const middle = { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" };
    svg.append(shape("text", middle, words));
    for (const each of about.lines) svg.append(drawn(each, x, y));
    for (const [, cx, cy] of marks) svg.append(shape("circle", { class: "ring", cx: x(cx), cy: y(cy), r: 8 }));
    return svg;
  }

  function table(about) {
    const made = element("table"), head = element("tr"), body = element("tbody"), top = element("thead");
    head.append(...["", "first", "last", "interval"].map((text) => element(text ? "th" : "td", text, text ? { scope: "col" } : {})));
    for (const each of about.lines) {
      const row = element("tr"), name = element("th", each.name, { scope: "row" });
      const last = each.mean.length - 1, key = element("span", "", { class: "key" });
      key.style.setProperty("--run", each.color);
      key.style.borderTopStyle = { "--": "dashed", ":": "dotted", "-.": "dashed", "": "dotted" }[each.dashes] || "solid";
      name.prepend(key);
      const reach = each.low[last] === null ? "" : `${plain(each.low[last])}\u00a0to ${plain(each.high[last])}`;
      const shown = [last ? plain(each.mean[0]) : "", plain(each.mean[last]), reach];
      row.append(name, ...shown.map((text, n) => element("td", text, n === 2 ? { class: "reach" } : {})));
      body.append(row);
    }
    top.append(head);
    made.append(element("caption", "Where the lines begin and end"), top, body);
    const wide = element("div", "", { class: "wide", role: "region", tabindex: "0", "aria-label": `Values of ${about.title}` });
    wide.append(made);
    return wide;
  }

  function start(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const output = (name) => root.querySelector(`[data-output="${name}"]`);
    let chosen = data.start.slice();

    // What a control offers beside the choices before it.
    const offered = (place) => [...new Set(data.cells
      .filter(([key]) => key.slice(0, place).every((value, n) => value === chosen[n]))
      .map(([key]) => key[place]))];

    const controls = data.controls.map((about, place) => {
      const label = element("label"), words = element("span", about.label);
      const slides = about.kind === "slider";
      const input = slides ? element("input", "", { type: "range", min: "0", step: "1" }) : element("select");
      const shown = element("output");
      input.setAttribute("data-control", about.name);
      if (slides) words.append(": ", shown);
      label.append(words, input);
      input.addEventListener(slides ? "input" : "change", () => {
        chosen[place] = offered(place)[Number(input.value)];
        draw();
      });
      output("controls").append(label);
      return (options) => {
        const at = options.indexOf(chosen[place]), names = options.map((n) => about.options[n]);
        if (slides) {
          input.max = String(options.length - 1);
          input.setAttribute("aria-valuetext", names[at]);
          shown.textContent = names[at];
        } else if (names.join("\n") !== [...input.options].map((o) => o.text).join("\n")) {
          input.replaceChildren(...names.map((name, n) => new Option(name, String(n))));
        }
        input.value = String(at);
      };
    });

    function draw() {
      controls.forEach((show, place) => {
        const options = offered(place);
        if (!options.includes(chosen[place])) chosen[place] = options[0];
        show(options);
      });
      const [, panels, said, marks] = data.cells.find(([key]) => key.every((value, n) => value === chosen[n]));
      const blocks = panels.map(() => element("div"));
      output("panels").replaceChildren(...blocks);
      const width = Math.min(Math.max(blocks[0].clientWidth || 600, 280), 760);
      for (const [place, block] of blocks.entries()) {
        const about = data.panels[panels[place]], rings = marks.filter(([panel]) => panel === place);
        block.append(element("p", about.title, { class: "title" }), picture(about, rings, width), table(about));
      }
      const words = said.map((n) => data.said[n]).join(" ");
      if (output("said").textContent !== words) output("said").textContent = words;
    }

    window.addEventListener("resize", draw);
    output("still").hidden = true;
    output("live").hidden = false;
    draw();
  }

  for (const root of document.querySelectorAll('[data-view="chart"]:not([data-ready])')) {
    root.setAttribute("data-ready", "");
    start(root);
  }
})();
