// What scrolls sideways says so and can be reached by keyboard, a formula keeps what it touches, headings of
// the sidebar have a level; an animation plays when it is asked to.
document.addEventListener("DOMContentLoaded", () => {
  const wide = "pre, .cell_output, .table-wrapper, figure:has(img.result), p:has(> img), .math-wrapper, .wide";
  const boxes = [...document.querySelectorAll(wide)];
  const mark = (box) => {
    const hidden = box.scrollWidth - box.clientWidth;
    box.classList.toggle("goes-on", hidden > 1 && box.scrollLeft < hidden - 1);
    if (hidden <= 1 || box.hasAttribute("role")) return;
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "wide content, scrolls sideways");
  };
  const markAll = () => boxes.forEach(mark);
  for (const box of boxes) box.addEventListener("scroll", () => mark(box), { passive: true });
  markAll();
  window.addEventListener("resize", markAll);
  document.addEventListener("toggle", markAll, true);
  // Figures have a width once they are there, formulas once they are set.
  window.addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(markAll));
  for (const formula of document.querySelectorAll("p span.math, dd span.math, li span.math")) {
    const text = (node) => (node?.nodeType === Node.TEXT_NODE ? node : { data: "" });
    const [before, after] = [text(formula.previousSibling), text(formula.nextSibling)];
    const [start, end] = [before.data.match(/\S*$/)[0], after.data.match(/^\S*/)[0]];
    if (!start && !end) continue;
    before.data = before.data.slice(0, before.data.length - start.length);
    after.data = after.data.slice(end.length);
    const line = document.createElement("span");
    line.className = "with-formula";
    formula.before(line);
    line.append(start, formula, end);
  }
  for (const caption of document.querySelectorAll(".caption[role=heading]:not([aria-level])")) {
    caption.setAttribute("aria-level", "2");
  }
  for (const link of document.querySelectorAll("a.play")) {
    const picture = document.getElementById(link.dataset.of)?.querySelector("img");
    if (!picture) continue;
    const still = picture.getAttribute("src");
    const words = link.textContent;
    link.setAttribute("role", "button");
    link.addEventListener("keydown", (event) => {
      if (event.key !== " ") return; // a button answers to space, which a link leaves to the page
      event.preventDefault();
      link.click();
    });
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const plays = picture.getAttribute("src") !== still;
      picture.setAttribute("src", plays ? still : link.getAttribute("href"));
      link.textContent = plays ? words : "Stop the animation";
    });
  }
});
