"use strict";

// --- figures: drawn when they come near the window, or before printing

function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const figure = JSON.parse(document.getElementById("data-" + place.dataset.figure).textContent);
  Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  if (place.dataset.figure === "map") place.on("plotly_click", (event) => find(event.points[0].customdata));
}

const places = [...document.querySelectorAll(".figure")];
const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => { near.unobserve(entry.target); draw(entry.target); }),
  { rootMargin: "600px" },
);
places.forEach((place) => near.observe(place));
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  places.forEach(draw);
});

// --- sorting: numbers by size, words by alphabet, what is missing always last

function compare(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  return down ? -order : order;
}

// Numbers start with the largest, words with A; a second click turns the order round. Returns whether to sort downwards.
function turn(heading) {
  const before = heading.getAttribute("aria-sort");
  const down = before ? before === "ascending" : heading.classList.contains("number");
  heading.closest("thead").querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  return down;
}

function keyOf(cell) {
  if (cell.dataset.key === undefined) return null;
  const number = Number(cell.dataset.key);
  return Number.isNaN(number) || cell.dataset.key === "" ? cell.dataset.key : number;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
    const down = turn(heading);
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(keyOf(a.cells[column]), keyOf(b.cells[column]), down));
    table.tBodies[0].append(...rows);
  }));
}

// --- the table of all heads: filtered, sorted and shown a part at a time

const PART = 150;
const every = JSON.parse(document.getElementById("data-every").textContent); // rows: [behaviour, rung, [key, text], ...]
const explorer = document.getElementById("explorer");
const filters = document.getElementById("filters");
const more = document.getElementById("more");
let shown = PART;

function element(name, text, numeric) {
  const made = document.createElement(name);
  made.textContent = text;
  if (numeric) made.className = "number";
  return made;
}

function rowOf(row) {
  const made = document.createElement("tr");
  row.slice(2).forEach(([, text], i) => made.append(element(i ? "td" : "th", text, every.columns[i][1])));
  made.firstChild.scope = "row";
  return made;
}

function matching() {
  const words = filters.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const least = Math.max(Number(filters.rung.value), filters.labels.checked ? 1 : 0);
  const only = filters.behaviour.value;
  return every.rows.filter(([behaviour, rung, head, title]) =>
    rung >= least && (!only || behaviour === only) && words.every((word) => isIn(word, head[1], title[1], behaviour)));
}

// L1 or L1H2 mean that layer and that head, not L10 or L1H20; anything else is looked for in the name of the behaviour too.
function isIn(word, head, title, behaviour) {
  const site = head.toLowerCase();
  if (/^l\d+h\d+$/.test(word)) return site === word;
  if (/^l\d+$/.test(word)) return site.startsWith(word + "h");
  return `${site} ${title} ${behaviour}`.toLowerCase().includes(word);
}

function refresh() {
  const rows = matching();
  explorer.tBodies[0].replaceChildren(...rows.slice(0, shown).map(rowOf));
  more.hidden = rows.length <= shown;
  document.getElementById("count").value = `${rows.length} of ${every.rows.length} rows`;
}

function find(site) {
  filters.text.value = site;
  filters.behaviour.value = "";
  filters.rung.value = "0";
  filters.labels.checked = false;
  shown = PART;
  refresh();
  document.getElementById("every").scrollIntoView();
}

const headings = document.createElement("tr");
every.columns.forEach(([title, numeric], column) => {
  const heading = element("th", "", numeric);
  heading.scope = "col";
  const button = element("button", title);
  button.type = "button";
  button.addEventListener("click", () => {
    const down = turn(heading);
    every.rows.sort((a, b) => compare(a[column + 2][0], b[column + 2][0], down));
    refresh();
  });
  heading.append(button);
  headings.append(heading);
});
explorer.tHead.append(headings);
for (const event of ["input", "change"]) filters.addEventListener(event, () => { shown = PART; refresh(); });
filters.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => { shown += PART; refresh(); });
refresh();
