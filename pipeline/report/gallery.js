"use strict";
// Pictures of the galleries, each once in the page however often it is shown, and the errors of the chosen head.

// Up to this side a picture is enlarged with its pixels as they are.
const TINY = 64;

function fillThumb(place) {
  const source = values.pictures[place.dataset.image];
  place.title = place.dataset.image;
  if (!source) {
    place.replaceChildren("no picture");
    return;
  }
  const image = element("img");
  image.alt = place.dataset.image;
  image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY));
  image.src = source;
  place.replaceChildren(image);
}

function errorCard(card) {
  const tile = element("figure", undefined, "tile");
  for (const name of card.names) {
    const place = element("span", undefined, "thumb");
    place.dataset.image = name;
    fillThumb(place);
    tile.append(place);
  }
  tile.append(element("figcaption", card.text));
  return tile;
}

let cardsOf = null;
function showErrors() {
  if (!values.heads.length || cardsOf === shown.head) return;
  cardsOf = shown.head;
  const { caption, cards } = values.heads[shown.head].errors;
  document.getElementById("errors-caption").textContent = caption;
  document.getElementById("errors").replaceChildren(...cards.map(errorCard));
}

document.querySelectorAll(".thumb").forEach(fillThumb);
listeners.push(showErrors);
