"use strict";
// Themes, figures and the choice of a head. Figures come as plotly values; a colour "var(--x)" is filled in here, and
// only below a key that says colour: a class may be named "var(--x)" too.

const values = JSON.parse(document.getElementById("values").textContent);
const root = document.documentElement;
const shown = { head: values.chosen };
const listeners = [];
const QUIET = { displayModeBar: false, responsive: true };

function filledIn(value, style, isColour = false) {
  if (isColour && typeof value === "string") return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
  if (Array.isArray(value)) return value.map((each) => filledIn(each, style, isColour));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, filledIn(each, style, key.includes("color"))]));
}

function themed(figure) {
  const style = getComputedStyle(root);
  const quiet = style.getPropertyValue("--quiet").trim();
  const line = style.getPropertyValue("--line").trim();
  const paper = style.getPropertyValue("--paper").trim();
  const ink = style.getPropertyValue("--ink").trim();
  const { data, layout } = filledIn(figure, style);
  const whole = {
    margin: { l: 10, r: 14, t: 10, b: 10 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: quiet },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: ink } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: quiet, activecolor: ink },
    showlegend: false,
    ...layout,
  };
  for (const name of Object.keys(whole).filter((key) => /^[xy]axis\d*$/.test(key))) {
    whole[name] = {
      automargin: true, zeroline: false, gridcolor: line, linecolor: line, tickcolor: line, fixedrange: true, ...whole[name],
    };
    if (whole[name].title) whole[name].title = { standoff: 12, ...whole[name].title };
  }
  return { data, layout: whole };
}

function draw(element, figure, config = QUIET) {
  const { data, layout } = themed(figure);
  // Paper is not measured by plotly itself, and the width for it must not stay behind.
  if (root.classList.contains("printing")) layout.width = element.clientWidth;
  else layout.autosize = true;
  return Plotly.react(element, data, layout, config);
}

function drawFigures() {
  for (const element of document.querySelectorAll("[data-figure]")) {
    const id = element.dataset.figure;
    const close = values.heads.length ? values.heads[shown.head][id] : null;
    const figure = close ? close.figure : values.figures[id];
    if (!figure) continue;
    if (close && "least_width" in close) {
      document.querySelector(".beside").classList.toggle("below", close.least_width > 0);
      element.style.minWidth = root.classList.contains("printing") ? "" : `${close.least_width}px`;
    }
    draw(element, figure);
  }
}

function drawAll() {
  drawFigures();
  listeners.forEach((listener) => listener());
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function showHead(number) {
  shown.head = number;
  for (const place of document.querySelectorAll(".head-name")) place.textContent = values.titles[number];
  if (values.heads.length) {
    const head = values.heads[number];
    for (const place of document.querySelectorAll("[data-caption]")) place.textContent = head[place.dataset.caption].caption;
    document.getElementById("pairs").replaceChildren(...head.pairs.map((pair) => {
      const item = element("li", `${pair.label} called ${pair.said}`);
      item.append(element("span", `${pair.n.toLocaleString("en")} images, ${pair.share} of the label`, "amount"));
      return item;
    }));
    if (!head.pairs.length) document.getElementById("pairs").replaceChildren(element("li", "None: every test image is right."));
  }
  drawAll();
}

const headChoice = document.getElementById("head-choice");
headChoice?.addEventListener("change", () => showHead(Number(headChoice.value)));

function setTheme(theme) {
  root.dataset.theme = theme;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => { setTheme(dark.matches ? "dark" : "light"); drawAll(); });
document.getElementById("theme-switch").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  drawAll();
});

let before = null;
addEventListener("beforeprint", () => {
  before = root.dataset.theme;
  setTheme("light");
  root.classList.add("printing");
  drawAll();
});
addEventListener("afterprint", () => {
  root.classList.remove("printing");
  setTheme(before);
  drawAll();
});
