"use strict";
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const plots = all(".plot");
  // A finger that scrolls the page must not select a part of a figure.
  const coarse = matchMedia("(pointer: coarse)").matches;
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, showTips: false };

  const draw = (box) => {
    const { data, layout } = JSON.parse(document.getElementById(box.dataset.drawing).textContent);
    if (coarse) layout.dragmode = false;
    return Plotly.newPlot(box, data, layout, config);
  };

  const drawAll = async () => {
    for (const box of plots) {
      await draw(box);
      await new Promise((resume) => setTimeout(resume)); // the page stays alive meanwhile
    }
    document.documentElement.dataset.drawn = plots.length;
  };

  // On paper everything is open, and figures are as wide as the paper.
  const PAPER = 660;
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((each) => each.setAttribute("open", ""));
    plots.forEach((box) => box._fullLayout && Plotly.relayout(box, { width: PAPER }));
  });
  addEventListener("afterprint", () => {
    opened.forEach((each) => each.removeAttribute("open"));
    plots.forEach((box) => box._fullLayout && Plotly.relayout(box, { width: null, autosize: true }));
  });

  const offerCopies = () => {
    if (!navigator.clipboard) return;
    for (const button of all(".copy")) {
      const label = button.innerHTML;
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.innerHTML = label; }, 2000);
      });
    }
  };

  all(".unscripted").forEach((each) => each.remove());
  offerCopies();
  drawAll();
})();
