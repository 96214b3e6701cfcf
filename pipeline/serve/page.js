"use strict";
// Names come from people and from file names: they are set as text, never as markup.
const SHOWN = 5, NEAREST = 6;
const find = (id) => document.getElementById(id);
const make = (name, kind, text) => {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
};
let model = null, token = "", waiting = [];

const ask = (path, how = {}) => {
  const headers = { ...(how.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return fetch(path, { ...how, headers, credentials: "omit", cache: "no-store" });
};

const complain = (text) => {
  find("problem").textContent = text;
  find("problem").hidden = !text;
};

const reasonOf = async (response) => {
  try {
    return (await response.json()).error || `The service answered ${response.status}.`;
  } catch {
    return `The service answered ${response.status}.`;
  }
};

const begin = async () => {
  let response;
  try {
    response = await ask("model");
  } catch {
    complain("The service does not answer. Is it still running?");
    return;
  }
  find("access").hidden = response.status !== 401;
  if (response.status === 401) {
    find("facts").textContent = "The service needs its token.";
    if (token) complain("This is not the token.");
    return;
  }
  if (!response.ok) {
    complain(await reasonOf(response));
    return;
  }
  model = await response.json();
  complain("");
  const classes = `${model.classes.length} ${model.classes.length === 1 ? "class" : "classes"}`;
  find("facts").textContent = `${model.head}, ${classes}`;
  show(waiting.splice(0));
};

const bars = (image) => {
  const box = make("div", "bars");
  // An object has names that are numbers in their order.
  for (const [name, p] of Object.entries(image.probabilities).sort((one, other) => other[1] - one[1])) {
    const bar = make("meter");
    bar.value = p;
    bar.setAttribute("aria-label", name);
    box.append(make("span", "", name), bar, make("span", "amount", `${(100 * p).toFixed(1)} %`));
  }
  return box;
};

const picture = async (place, id) => {
  const response = await ask(`training/${id}/thumbnail`);
  if (!response.ok) return;
  place.src = URL.createObjectURL(await response.blob());
  place.hidden = false;
};

const near = (images) => {
  const list = make("ul", "near");
  for (const each of images) {
    const item = make("li");
    if (model.thumbnails) {
      const shown = make("img");
      shown.alt = "";
      shown.hidden = true;
      item.append(shown);
      picture(shown, each.id).catch(() => {});
    }
    item.append(make("span", "", each.label), make("span", "amount", `distance ${each.distance.toPrecision(3)}`));
    list.append(item);
  }
  return list;
};

const label = async (file, box) => {
  const status = make("p", "small", "Waiting for the answer.");
  box.append(status);
  let response;
  try {
    response = await ask(`predict?top=${SHOWN}&nearest=${NEAREST}`, {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
    });
  } catch {
    status.textContent = "The service does not answer. Is it still running?";
    return;
  }
  if (!response.ok) {
    status.textContent = await reasonOf(response);
    if (response.status === 401) find("access").hidden = false;
    return;
  }
  const image = (await response.json()).images[0];
  status.remove();
  box.append(make("h2", "label", image.label), bars(image));
  if (image.nearest.length) box.append(make("h3", "", "Nearest training images"), near(image.nearest));
};

const show = async (files) => {
  if (!files.length) return;
  if (!model) {
    waiting.push(...files);
    return;
  }
  const todo = files.map((file) => {
    const row = make("article", "image"), left = make("div"), right = make("div"), shown = make("img", "shown");
    shown.alt = "";
    shown.src = URL.createObjectURL(file);
    shown.addEventListener("error", () => shown.remove());
    left.append(shown, make("p", "small", file.name || "pasted image"));
    row.append(left, right);
    find("results").prepend(row);
    return [file, right];
  });
  for (const [file, box] of todo) await label(file, box);
};

const drop = find("drop");
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  show([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => show([...event.clipboardData.files]));
find("choose").addEventListener("change", (event) => {
  show([...event.target.files]);
  event.target.value = "";
});
find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  begin();
});
begin();
