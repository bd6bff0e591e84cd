(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 260, LEFT = 48, RIGHT = 12, TOP = 10, BOTTOM = 40;

  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  const shape = (name, attributes, text = "") => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  const plain = (value) => (value === null ? "" : String(Number(value.toPrecision(3))));

  function start(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const control = (name) => root.querySelector(`[data-control="${name}"]`);
    const output = (name) => root.querySelector(`[data-output="${name}"]`);
    const alpha = control("alpha"), metric = control("metric"), chart = output("chart");
    const rlvr = data.runs[0], opd = data.runs[data.runs.length - 1];

    function drawn(run, about, x, y, chosen) {
      const path = run.paths[metric.value];
      const points = path.mean.map((value, n) => `${x(path.progress[n])},${y(value)}`);
      const group = shape("g", { class: chosen ? "chosen" : "" });
      group.style.setProperty("--run", run.color);
      if (chosen && path.low.every((value) => value !== null)) {
        const up = path.high.map((value, n) => `${x(path.progress[n])},${y(value)}`);
        const down = path.low.map((value, n) => `${x(path.progress[n])},${y(value)}`).reverse();
        group.append(shape("polygon", { class: "band", points: [...up, ...down].join(" ") }));
      }
      const dashes = run === rlvr ? "5 4" : "none";
      group.append(shape("polyline", { class: "path", points: points.join(" "), "stroke-dasharray": dashes }));
      if (chosen) {
        for (const point of points) {
          const [cx, cy] = point.split(",");
          group.append(shape("circle", { class: "dot", cx, cy, r: 3.5 }));
        }
      }
      return group;
    }

    function picture(chosen, said) {
      const width = Math.min(Math.max(chart.clientWidth || 600, 280), 760);
      const about = data.metrics[metric.value], scale = about.log ? Math.log : Number;
      const [low, high] = about.span.map(scale);
      const x = (value) => LEFT + value * (width - LEFT - RIGHT);
      const y = (value) => {
        const share = (scale(value) - low) / (high - low || 1);
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
      };
      const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": said });
      svg.style.maxWidth = `${width}px`;
      for (const tick of about.ticks) {
        svg.append(
          shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
          shape("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, plain(tick)),
        );
      }
      for (const tick of [0, 0.5, 1]) {
        svg.append(shape("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(tick)));
      }
      const words = { x: x(0.5), y: HEIGHT - 6, "text-anchor": "middle" };
      svg.append(shape("text", words, `${about.label} against training progress`));
      for (const run of new Set([rlvr, opd, chosen])) svg.append(drawn(run, about, x, y, run === chosen));
      return svg;
    }

    function row(run, chosen) {
      const path = run.paths[metric.value], line = document.createElement("tr");
      const last = path.mean.length - 1, key = element("span", "");
      key.className = "key";
      key.style.setProperty("--run", run.color);
      key.style.borderTopStyle = run === rlvr ? "dashed" : "solid";
      const name = element("th", run === chosen ? `${run.name}, chosen` : run.name);
      name.scope = "row";
      name.prepend(key);
      const reach = path.low[last] === null ? "" : `${plain(path.low[last])} to ${plain(path.high[last])}`;
      line.append(name, ...[plain(path.mean[0]), plain(path.mean[last]), reach].map((t) => element("td", t)));
      return line;
    }

    function draw() {
      const chosen = data.runs[alpha.value], { said } = chosen.paths[metric.value];
      output("alpha").textContent = chosen.name;
      alpha.setAttribute("aria-valuetext", chosen.name);
      chart.replaceChildren(picture(chosen, said));
      const shown = data.runs.filter((run) => [rlvr, opd, chosen].includes(run)).reverse();
      output("ends").tBodies[0].replaceChildren(...shown.map((run) => row(run, chosen)));
      if (output("said").textContent !== said) output("said").textContent = said;
    }

    metric.replaceChildren(
      ...Object.entries(data.metrics).map(([name, about]) => new Option(about.label, name)),
    );
    metric.value = data.start.metric;
    alpha.max = String(data.runs.length - 1);
    alpha.value = String(data.start.alpha);
    alpha.addEventListener("input", draw);
    metric.addEventListener("change", draw);
    window.addEventListener("resize", draw);
    output("still").hidden = true;
    output("live").hidden = false;
    draw();
  }

  for (const root of document.querySelectorAll('[data-view="mixing"]:not([data-ready])')) {
    root.setAttribute("data-ready", "");
    start(root);
  }
})();
