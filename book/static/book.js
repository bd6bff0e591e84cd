// What scrolls sideways can be reached by keyboard, headings of the sidebar have a level; an animation plays when it is asked to.
document.addEventListener("DOMContentLoaded", () => {
  const wide = "div.highlight pre, .cell_output, .table-wrapper, figure:has(img.result), .math";
  for (const box of document.querySelectorAll(wide)) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", "wide content, scrolls sideways");
    }
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
