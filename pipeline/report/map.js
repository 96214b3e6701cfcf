"use strict";
// The map of the features: one point per image, a ring where the chosen head is wrong, a card with the image on hover.

const map = values.map;
const SYMBOLS = ["circle", "square", "diamond", "triangle-up"];
const N_COLOURS = 10;
// More buttons than this are no legend any more; the list next to it names all classes.
const MAX_LEGEND = 20;
// More rings than this cover what they mark unless they are thin.
const CROWDED = 300;
const CARD_PICTURE = 120;
const GAP = 14;
const picked = { layout: 0, only: "", errorsOnly: false };

const colourOf = (label) => `var(--class-${label % N_COLOURS})`;
const symbolOf = (label) => SYMBOLS[Math.floor(label / N_COLOURS) % SYMBOLS.length];

function mapFigure() {
  const { x, y } = map.layouts[picked.layout];
  const said = map.said[shown.head];
  const wrong = map.label.map((label, i) => said[i] !== label);
  const visible = map.label.map((label, i) => (picked.only === "" || label === Number(picked.only)) && (!picked.errorsOnly || wrong[i]));
  const rings = x.map((_, i) => i).filter((i) => wrong[i] && visible[i]);
  const axis = { showgrid: false, showline: false, showticklabels: false, ticks: "", fixedrange: false };
  return {
    data: [
      {
        type: "scatter", mode: "markers", x, y, hoverinfo: "none",
        marker: {
          color: map.label.map(colourOf), symbol: map.label.map(symbolOf), size: 7,
          opacity: visible.map((each) => (each ? 0.85 : 0.07)), line: { width: 0 },
        },
      },
      {
        type: "scatter", mode: "markers", x: rings.map((i) => x[i]), y: rings.map((i) => y[i]), hoverinfo: "skip",
        marker: { symbol: "circle-open", color: "var(--ink)", size: 11, line: { width: rings.length > CROWDED ? 0.8 : 1.4 } },
      },
    ],
    layout: {
      height: Math.max(380, Math.min(640, innerHeight - 180)), dragmode: "zoom", hovermode: "closest", hoverdistance: 12,
      uirevision: picked.layout, margin: { l: 8, r: 8, t: 8, b: 8 }, xaxis: axis, yaxis: { ...axis },
    },
  };
}

function showCard(event) {
  const i = event.points[0].pointIndex;
  const card = document.getElementById("card");
  const [picture, text] = card.children;
  const said = map.said[shown.head][i];
  const lines = [`label: ${values.classes[map.label[i]]}`, `called: ${values.classes[said]} (${map.sure[shown.head][i]} %)`, map.names[i]];
  text.textContent = lines.join("\n");
  const place = map.sheet ? map.sheet.places[i] : -1;
  picture.hidden = place < 0;
  if (place >= 0) {
    const { columns, rows, source } = map.sheet;
    Object.assign(picture.style, {
      width: `${CARD_PICTURE}px`, height: `${CARD_PICTURE}px`,
      backgroundImage: `url(${source})`, backgroundSize: `${columns * CARD_PICTURE}px ${rows * CARD_PICTURE}px`,
      backgroundPosition: `${-(place % columns) * CARD_PICTURE}px ${-Math.floor(place / columns) * CARD_PICTURE}px`,
    });
  }
  card.hidden = false;
  placeCard(card, event.points[0]);
}

function placeCard(card, point) {
  const frame = card.parentElement;
  const left = point.xaxis._offset + point.xaxis.d2p(point.x);
  const top = point.yaxis._offset + point.yaxis.d2p(point.y);
  const fits = left + GAP + card.offsetWidth <= frame.clientWidth;
  const wanted = fits ? left + GAP : left - GAP - card.offsetWidth;
  card.style.left = `${Math.max(4, wanted)}px`;
  card.style.top = `${Math.max(4, Math.min(top - card.offsetHeight / 2, frame.clientHeight - card.offsetHeight - 4))}px`;
}

function drawMap() {
  const plot = document.getElementById("map-plot");
  document.getElementById("card").hidden = true;
  return draw(plot, mapFigure(), {
    responsive: true, displaylogo: false, modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  });
}

function pressed(buttons, isPressed) {
  buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(isPressed(i))));
}

function layoutButtons() {
  const buttons = map.layouts.map((layout, i) => {
    const button = element("button", layout.name);
    button.type = "button";
    button.addEventListener("click", () => { picked.layout = i; pressed(buttons, (each) => each === i); drawMap(); });
    return button;
  });
  pressed(buttons, (i) => i === picked.layout);
  document.getElementById("layout-choice").replaceChildren(...buttons);
}

function symbolMark(label) {
  const shapes = {
    circle: "M6 1a5 5 0 1 0 .01 0Z", square: "M1.5 1.5h9v9h-9Z", diamond: "M6 0l6 6-6 6-6-6Z", "triangle-up": "M6 1l5.5 10h-11Z",
  };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", shapes[symbolOf(label)]);
  path.style.fill = colourOf(label);
  svg.append(path);
  return svg;
}

function showOnly(label) {
  picked.only = label;
  document.getElementById("class-choice").value = label;
  for (const button of document.querySelectorAll("#legend button")) button.setAttribute("aria-pressed", String(button.value === label));
  drawMap();
}

function classChoice() {
  const choice = document.getElementById("class-choice");
  values.classes.forEach((name, label) => {
    const option = element("option", name);
    option.value = String(label);
    choice.append(option);
  });
  choice.addEventListener("change", () => showOnly(choice.value));
  if (values.classes.length > MAX_LEGEND) {
    document.getElementById("legend").append(element("span", "Colours and shapes repeat after 40 classes; point at an image to see its own.", "small"));
    return;
  }
  document.getElementById("legend").replaceChildren(...values.classes.map((name, label) => {
    const button = element("button", name);
    button.type = "button";
    button.value = String(label);
    button.prepend(symbolMark(label));
    button.addEventListener("click", () => showOnly(picked.only === button.value ? "" : button.value));
    return button;
  }));
}

if (map) {
  layoutButtons();
  classChoice();
  document.getElementById("only-errors").addEventListener("change", (event) => { picked.errorsOnly = event.target.checked; drawMap(); });
  listeners.push(drawMap);
}

showHead(shown.head);

if (map) {
  const plot = document.getElementById("map-plot");
  plot.on("plotly_hover", showCard);
  plot.on("plotly_unhover", () => { document.getElementById("card").hidden = true; });
  plot.on("plotly_relayout", () => { document.getElementById("card").hidden = true; });
}
