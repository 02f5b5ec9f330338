"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  // A colour is written "@role" in the figures; the style sheet says what it is in this theme.
  const painted = (value, style) => {
    if (typeof value === "string" && value.startsWith("@")) {
      return style.getPropertyValue("--" + value.slice(1)).trim() || value;
    }
    if (Array.isArray(value)) return value.map((item) => painted(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item, style)]));
    }
    return value;
  };

  const PAPER_WIDTH = 610; // of a chart on A4 or Letter, which the screen's layout cannot tell
  const draw = (width) => {
    const style = getComputedStyle(root);
    const family = getComputedStyle(document.body).fontFamily;
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById("plot-" + name);
      const layout = painted(figure.layout, style);
      layout.font.family = family;
      layout.width = width || place.clientWidth;
      if (layout.width < 480) layout.font.size = 11.5;
      Plotly.react(place, painted(figure.data, style), layout, { displayModeBar: false });
    }
  };

  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => draw(), 120); });
  dark.addEventListener("change", () => draw());
  addEventListener("beforeprint", () => { root.classList.add("print"); draw(PAPER_WIDTH); });
  addEventListener("afterprint", () => { root.classList.remove("print"); draw(); });
  draw();
  root.dataset.drawn = "yes";
})();
