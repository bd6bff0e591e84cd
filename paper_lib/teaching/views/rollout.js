(() => {
  "use strict";
  const MINUS = "\u2212";
  const FULL = 60;  // % of its colour that a cell of very large credit has; black is readable on it

  // To two decimals with its sign, none where that is 0.00.
  const signed = (value) => {
    const text = Math.abs(value).toFixed(2);
    return Number(text) === 0 ? text : (value > 0 ? "+" : MINUS) + text;
  };

  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  function start(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const control = (name) => root.querySelector(`[data-control="${name}"]`);
    const output = (name) => root.querySelector(`[data-output="${name}"]`);
    const [prompt, completion, alpha] = ["prompt", "completion", "alpha"].map(control);

    const offer = (select, options) =>
      select.replaceChildren(...options.map((each, n) => new Option(each.name, String(n))));

    const number = (text, value) => {
      const cell = element("td", text);
      if (value) {
        cell.className = value > 0 ? "plus" : "minus";
        const much = (FULL * Math.abs(value)) / (1 + Math.abs(value));
        cell.style.setProperty("--much", `${much.toFixed(1)}%`);
      }
      return cell;
    };

    function row(chosen, demonstration, mix, place) {
      const line = document.createElement("tr"), token = chosen.tokens[place];
      const name = element(token === undefined ? "td" : "th", "");
      if (token !== undefined) {
        name.scope = "row";
        name.append(element("code", token));
      }
      line.append(name);
      if (token === undefined) {
        for (let n = 0; n < 6; n += 1) line.append(element("td", ""));
      } else {
        const [student, teacher] = [chosen.student[place], chosen.teacher[place]].map((p) => p.toFixed(3));
        line.title = `token ${place + 1}, ${token}: student ${student}, teacher ${teacher}`;
        line.append(number(student), number(teacher), number(signed(chosen.gap[place])));
        for (const value of [chosen.opd[place], chosen.rlvr, mix[place]]) {
          line.append(number(signed(value), value));
        }
      }
      const shown = demonstration[place];
      const sft = number(shown === undefined ? "" : " +1", shown === undefined ? 0 : 1);
      if (shown !== undefined) sft.prepend(element("code", shown));
      line.append(sft);
      return line;
    }

    function draw() {
      const group = data.prompts[prompt.value], chosen = group.completions[completion.value];
      const share = Number(alpha.value);
      const mix = chosen.opd.map((credit) => share * credit + (1 - share) * chosen.rlvr);
      output("alpha").textContent = share.toFixed(2);
      alpha.setAttribute("aria-valuetext", `α = ${share.toFixed(2)}`);
      const length = Math.max(chosen.tokens.length, group.demonstration.length);
      output("tokens").tBodies[0].replaceChildren(
        ...Array.from({ length }, (_, place) => row(chosen, group.demonstration, mix, place)),
      );
      output("group").replaceChildren(...group.completions.map((each, n) => {
        const item = element("li", `${n + 1}: ${each.reward} ${each.reward ? "right" : "wrong"}`);
        if (each === chosen) item.setAttribute("aria-current", "true");
        return item;
      }));
      output("said").textContent = `${chosen.said} With α = ${share.toFixed(2)} the mix has ` +
        `${signed(mix[chosen.lowest])} there.`;
    }

    offer(prompt, data.prompts);
    prompt.value = String(data.start.prompt);
    offer(completion, data.prompts[prompt.value].completions);
    completion.value = String(data.start.completion);
    alpha.value = String(data.start.alpha);
    prompt.addEventListener("change", () => {
      const kept = completion.value;
      offer(completion, data.prompts[prompt.value].completions);
      completion.value = kept;
      draw();
    });
    completion.addEventListener("change", draw);
    alpha.addEventListener("input", draw);
    draw();
    output("still").hidden = true;
    output("live").hidden = false;
  }

  for (const root of document.querySelectorAll('[data-view="rollout"]:not([data-ready])')) {
    root.setAttribute("data-ready", "");
    start(root);
  }
})();
