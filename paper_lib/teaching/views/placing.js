(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT = 52, RIGHT = 16, TOP = 16, ROW = 28, PAUSE = 500;
  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*%?$/i;
  const FIND = "[^0-9+.\\n-]{0,24}([+-]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[+-]?\\d+)?\\s*%?)";

  const filled = (made, text, attributes) => {
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const element = (name, text = "", attributes = {}) => filled(document.createElement(name), text, attributes);
  const shape = (name, attributes, text = "") => filled(document.createElementNS(SVG, name), text, attributes);

  const shown = (axis, value) => {
    const percent = axis.unit === "%";
    return String(Number((percent ? 100 * value : value).toPrecision(3))) + (percent ? " %" : "");
  };

  // --- The rule of paper_lib/compare/placing.py.

  function position(value, share) {
    if (value <= 0) return -Infinity;
    if (share) return value >= 1 ? Infinity : Math.log(value / (1 - value));
    return Math.log(value);
  }

  function groups(axis, regimes) {
    const ends = Object.entries(axis.columns).map(([run, pair]) => [run, ...pair.map((end) => position(end, axis.share))]);
    const made = [];
    for (const [run, low, high] of ends.sort((one, other) => one[1] - other[1])) {
      const last = made[made.length - 1];
      if (last && low <= last.high) {
        last.runs.push(run);
        last.high = Math.max(last.high, high);
      } else {
        made.push({ runs: [run], low, high });
      }
    }
    const names = Object.keys(regimes);
    return made.map(({ runs, low, high }) => ({
      name: names.filter((run) => runs.includes(run)).map((run) => regimes[run]).join(" or "),
      first: Math.min(...runs.map((run) => names.indexOf(run))),
      low,
      high,
    }));
  }

  function placed(axis, value, data) {
    const all = groups(axis, data.regimes), x = position(value, axis.share);
    const inside = all.find(({ low, high }) => low <= x && x <= high);
    if (inside) return `at ${inside.name}`;
    const below = all.filter(({ high }) => high < x), above = all.filter(({ low }) => low > x);
    if (below.length && above.length) {
      const left = below[below.length - 1], right = above[0];
      const way = (x - left.high) / (right.low - left.high);
      if (way <= data.near) return `near ${left.name}`;
      if (way >= 1 - data.near) return `near ${right.name}`;
      const [first, second] = [left, right].sort((one, other) => one.first - other.first);
      return `between ${first.name} and ${second.name}`;
    }
    const beyond = above.length > 0, outermost = beyond ? above[0] : below[below.length - 1];
    if (all.length === 1) return `${beyond ? "below" : "above"} ${outermost.name}`;
    const last = all.length - 1;
    const gap = beyond ? all[1].low - all[0].high : all[last].low - all[last - 1].high;
    const away = Math.abs(x - (beyond ? outermost.low : outermost.high));
    return `${away <= data.near * gap ? "near" : "beyond"} ${outermost.name}`;
  }

  function alike(axis, value, other, data) {
    if (axis.share) return Math.abs(value - other) <= data.alike;
    return Math.min(value, other) <= 0 ? value === other : Math.abs(Math.log(value / other)) <= data.like;
  }

  function said(axis, text, value, data) {
    const theirs = Object.values(axis.nulls).flatMap((of) => Object.values(of));
    const same = Object.keys(data.regimes).filter((run) => Object.values(axis.nulls[run] || {})
      .some((other) => alike(axis, value, other, data)));
    let beside = "Its nulls keep the norm and tell nothing here.";
    if (theirs.length) {
      const [low, high] = [Math.min(...theirs), Math.max(...theirs)].map((end) => shown(axis, end));
      beside = `No null lies there: they go from ${low} to ${high}.`;
    }
    if (same.length) {
      beside = `So has an update without structure of the size of ${same.map((run) => data.regimes[run]).join(" or ")}.`;
    }
    return `${axis.label} ${text}: ${placed(axis, value, data)}. ${beside}`;
  }

  // --- What is typed: a value, or what is wrong with it.

  const hint = (axis) => (axis.unit === "%" ? "0 to 1, or with % such as 2.5 %" : `a number from ${axis.range[0]} on`);

  function parsed(axis, typed) {
    const text = typed.trim().replace("−", "-");
    if (!text) return {};
    if (!NUMBER.test(text)) return { wrong: `“${typed.trim()}” is no number; write it as 0.025 or 2.5e-2` };
    const percent = text.endsWith("%");
    if (percent && axis.unit !== "%") return { wrong: `${text}: ${axis.label.toLowerCase()} is no percentage` };
    const value = percent ? Number(text.slice(0, -1)) / 100 : Number(text), [low, high] = axis.range;
    if (value >= low && value <= high) return { text, value };
    const help = axis.unit === "%" && !percent && value > high ? `; for a percentage write ${text} %` : "";
    const range = axis.unit === "%" ? `${low} to ${high} (100 %)` : `${low} to ${high}`;
    return { wrong: `${text} is out of range, ${range}${value <= 100 ? help : ""}` };
  }

  // --- The picture of one metric: a row a regime, its seeds, its nulls, and the value across them.

  function picture(axis, about, data, width) {
    const runs = Object.keys(data.regimes), bottom = TOP + ROW * runs.length;
    const [low, high] = axis.span, [from, to] = [LEFT, width - RIGHT];
    const along = (value) => from + ((value - low) / (high - low)) * (to - from);
    const x = (value) => along(position(value, axis.share));
    const label = `${axis.label} of SFT, OPD and RLVR, their nulls${about.text ? ` and yours, ${about.text}` : ""}`;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${bottom + 24}`, role: "img", "aria-label": label });
    svg.style.maxWidth = `${width}px`;
    let free = -Infinity;
    for (const [at, text] of axis.ticks) {
      const middle = along(at);
      svg.append(shape("line", { class: "grid", x1: middle, x2: middle, y1: TOP, y2: bottom }));
      if (middle - 4 * text.length < free) continue;
      svg.append(shape("text", { x: middle, y: bottom + 16, "text-anchor": "middle" }, text));
      free = middle + 4 * text.length;
    }
    runs.forEach((run, row) => {
      const y = TOP + ROW * (row + 0.5), ends = axis.columns[run];
      svg.append(shape("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, data.regimes[run]));
      if (ends) {
        const band = shape("line", { class: "band-line", x1: x(ends[0]) - 2, x2: x(ends[1]) + 2, y1: y - 4, y2: y - 4 });
        band.style.setProperty("--run", `var(--${run})`);
        svg.append(band);
      }
      for (const [null_, value] of Object.entries(axis.nulls[run] || {})) {
        const cx = x(value), cy = y + 6, gaussian = null_ === Object.keys(data.nulls)[0];
        const turned = gaussian ? { transform: `rotate(45 ${cx} ${cy})` } : {};
        svg.append(shape("rect", { class: "null", x: cx - 3, y: cy - 3, width: 6, height: 6, ...turned }));
      }
    });
    if (about.value !== undefined) {
      const at = Math.min(Math.max(x(about.value), from), to), past = Math.sign(x(about.value) - at);
      const tip = past ? `${at - 6 * past},2 ${at + 6 * past},8 ${at - 6 * past},14` : `${at - 6},2 ${at + 6},2 ${at},12`;
      svg.append(
        shape("line", { class: "own", x1: at, x2: at, y1: TOP - 4, y2: bottom }),
        shape("polygon", { class: "tip", points: tip }),
      );
    }
    return svg;
  }

  function rows(data) {
    const head = element("tr"), body = element("tbody"), top = element("thead");
    head.append(...["metric and regime", "our seeds", ...Object.values(data.nulls)].map((text) => element("th", text, { scope: "col" })));
    top.append(head);
    for (const axis of data.axes) {
      for (const run of Object.keys(data.regimes).filter((name) => axis.columns[name])) {
        const ends = axis.columns[run];
        const row = element("tr"), nulls = Object.keys(data.nulls).map((name) => (axis.nulls[run] || {})[name]);
        row.append(
          element("th", `${axis.label}, ${data.regimes[run]}`, { scope: "row" }),
          element("td", ends.map((end) => shown(axis, end)).join(" to ")),
          ...nulls.map((value) => element("td", value === undefined ? "–" : shown(axis, value))),
        );
        body.append(row);
      }
    }
    return [top, body];
  }

  function start(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const output = (name) => root.querySelector(`[data-output="${name}"]`);
    let waiting = 0;

    const inputs = data.axes.map((axis) => {
      const label = element("label"), below = element("span", hint(axis), { class: "hint" });
      const input = element("input", "", { type: "text", autocomplete: "off", spellcheck: "false", "data-control": axis.name });
      input.value = data.start[axis.name] || "";
      input.addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(draw, PAUSE); // so that a number is read out once, not digit by digit
      });
      input.addEventListener("change", draw);
      input.addEventListener("paste", pasted);
      label.append(element("span", axis.label), input, below);
      output("controls").append(label);
      return input;
    });

    function summarized(text) {
      try {
        const { metrics } = JSON.parse(text);
        return metrics && data.axes.map(({ name }) => String(metrics[name]?.value ?? ""));
      } catch {
        return null;
      }
    }

    // By the whole name, else by its last word where no other name ends in it, as frobenius_norm does.
    const named = (text) => data.axes.map(({ name }) => {
      const whole = name.replace("_", "[ _-]?"), last = `(?<![a-z_-]|[a-z] )${name.split("_")[1]}`;
      const match = [whole, last].map((word) => text.match(new RegExp(word + FIND, "i"))).find(Boolean);
      return match && match[1];
    });

    // Several numbers fill several inputs: those of a report's summary.json, by name, else in order.
    function pasted(event) {
      const text = event.clipboardData.getData("text"), first = inputs.indexOf(event.target);
      const loose = text.trim().replace(/\s+%/g, "%").split(/[\s;]+/);
      const several = loose.length > 1 && loose.every((word) => NUMBER.test(word));
      let values = summarized(text) || named(text);
      if (!values.some(Boolean)) values = several ? [...Array(first), ...loose] : [];
      if (!values.length) return;
      event.preventDefault();
      values.slice(0, inputs.length).forEach((value, n) => { if (value) inputs[n].value = value.trim(); });
      draw();
    }

    function draw() {
      clearTimeout(waiting);
      const blocks = data.axes.map(() => element("div"));
      output("panels").replaceChildren(...blocks);
      const width = Math.min(Math.max(blocks[0].clientWidth || 600, 280), 760), lines = [];
      data.axes.forEach((axis, n) => {
        const about = parsed(axis, inputs[n].value);
        inputs[n].setAttribute("aria-invalid", String(Boolean(about.wrong)));
        inputs[n].nextElementSibling.textContent = about.wrong || hint(axis);
        if (about.wrong) lines.push(`${axis.label}: ${about.wrong}.`);
        if (about.text) lines.push(said(axis, about.text, about.value, data));
        blocks[n].append(element("p", axis.label, { class: "title" }), picture(axis, about, data, width));
      });
      if (!lines.length) lines.push("No number yet.");
      const words = lines.join(" ");
      if (output("said").dataset.words === words) return;
      output("said").dataset.words = words;
      output("said").replaceChildren(...lines.map((line) => element("p", `${line} `)));
    }

    output("note").textContent =
      "Bars are our seeds, diamonds nulls of the same norm with Gaussian entries, squares the entries permuted; the dashed "
      + "line is yours, an arrow says that it lies past the edge. Absolute values depend on the model's size, the steps and "
      + `the learning rate. So read the position among the regimes at this scale, a model of width ${data.width}, and not `
      + "the number; the stable rank grows with the width.";
    output("values").append(...rows(data));
    window.addEventListener("resize", draw);
    output("still").hidden = true;
    output("live").hidden = false;
    draw();
  }

  for (const root of document.querySelectorAll('[data-view="placing"]:not([data-ready])')) {
    root.setAttribute("data-ready", "");
    start(root);
  }
})();
