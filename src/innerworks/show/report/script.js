"use strict";

// Embedded data: see embedded.py. What many rows share is put back into each of them.
function book(id) {
  const data = JSON.parse(document.getElementById(id).textContent);
  const looks = data.behaviours.map(([name, title, says, kin, colour, mark, quiet]) => ({ name, title, says, kin, colour, mark, quiet }));
  const series = data.series.map(([behaviour, subject, question, material, unit, nullKind, floor, n, decides, tries, ofPair, byPair, family]) =>
    ({ behaviour, subject, question, material, unit, nullKind, floor, n, decides, tries, ofPair, byPair, family }));
  const rows = data.rows.map(([head, place, score, compared, effect, text, q = "–", above = 0, rung = 0, note = 0, others = null]) =>
    ({ head, series: series[place], rung, score, compared, effect, text, q, above, note, others }));
  return { ...data, behaviours: looks, series, rows };
}

const atlas = book("data-heads");
atlas.nothing = ["Nothing was measured.", "Nothing was measured.", "It was not ablated in this scan."]; // by question, where there is no score
const { behaviours, series, rows } = atlas;

// --- figures: drawn when they come near the window, or before printing

function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const given = JSON.parse(document.getElementById("data-" + place.dataset.figure).textContent);
  const figure = "example" in given ? patternOf(atlas.examples[given.example]) : given;
  figure.layout.height = parseInt(place.style.height);
  Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  place.on("plotly_click", (event) => {
    const site = [event.points[0].customdata, event.points[0].text].find((one) => /^L\d+[HN]\d+$/.test(one));
    if (site) { left = scrollY; location.hash = site; }
  });
}

// The bytes of an example's pattern, row by row up to the diagonal, as probabilities.
function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return (row, key) => (key <= row ? bytes[(row * (row + 1)) / 2 + key] / 255 : 0);
}

// The figure of an example: the picture of an empty pattern, filled with this one's tokens, numbers and colour.
function patternOf([, behaviour, , tokens, , packed]) {
  const figure = JSON.parse(document.getElementById("data-pattern").textContent);
  const at = unpacked(packed);
  const names = tokens.map((token) => token.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"));
  const places = names.map((name, i) => `${name} (${i})`); // tokens may repeat, places may not
  const colour = [1, 3, 5].map((i) => parseInt(behaviours[behaviour].colour.slice(i, i + 2), 16)).join();
  const [picture] = figure.data;
  Object.assign(picture, { x: places, y: places, z: tokens.map((_, row) => tokens.map((_, key) => (key <= row ? at(row, key) : null))) });
  picture.colorscale = picture.colorscale.map(([where, faded]) => [where, faded.replace("0,0,0", colour)]);
  for (const axis of ["xaxis", "yaxis"]) Object.assign(figure.layout[axis], { tickvals: places, ticktext: names });
  return figure;
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

// One row per head and behaviour: what its label rests on by material, and what ablating it did.
function tableOfHeads() {
  const materials = [...new Set(series.filter((one) => one.decides).map((one) => one.material))];
  const tries = [...new Set(series.filter((one) => one.tries).map((one) => one.tries))];
  const columns = [["head", false], ["behaviour", false], ["rung", true], ...materials.map((one) => [`effect, ${one} [95 %]`, true]), ["q", true], ...tries.map((one) => [one, true])];
  const made = new Map();
  for (const row of rows) {
    const one = row.series;
    if (typeof row.head !== "number" || (!one.decides && !one.tries)) continue;
    const key = row.head + "/" + one.behaviour;
    if (!made.has(key)) {
      const place = atlas.heads[row.head].match(/\d+/g).map(Number);
      const behaviour = behaviours[one.behaviour];
      made.set(key, [behaviour.name, behaviour.kin, 0, [place[0] + place[1] / 1e4, atlas.heads[row.head]], [behaviour.title, behaviour.title], [0, "–"], ...columns.slice(3).map(() => [null, "–"])]);
    }
    const cells = made.get(key);
    const column = 6 + (one.tries ? materials.length + 1 + tries.indexOf(one.tries) : materials.indexOf(one.material));
    if (cells[column][0] === null) cells[column] = [row.effect, row.text + (one.unit === "probability" || !one.unit ? "" : " " + one.unit)];
    const q = 6 + materials.length;
    if (one.decides && row.q !== "–" && cells[q][0] === null) cells[q] = [Number(row.q.replace("−", "-").replace("< ", "")), row.q];
  }
  for (const [head, place, rung] of atlas.labels) {
    const cells = made.get(head + "/" + place);
    if (cells) { cells[2] = rung; cells[5] = [rung, `${rung} ${atlas.rungs[rung]}`]; }
  }
  return { columns, rows: [...made.values()] };
}

const every = tableOfHeads(); // rows: [behaviour, family, rung, [key, text], ...]
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
  row.slice(3).forEach(([, text], i) => made.append(element(i ? "td" : "th", i ? text : "", every.columns[i][1])));
  made.firstChild.scope = "row";
  made.firstChild.append(linkTo(row[3][1]));
  return made;
}

function matching() {
  const words = filters.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const least = Math.max(Number(filters.rung.value), filters.labels.checked ? 1 : 0);
  const only = filters.behaviour.value;
  return every.rows.filter(([behaviour, kin, rung, head, title]) =>
    rung >= least && (!only || behaviour === only || kin === only) && words.every((word) => isIn(word, head[1], title[1], behaviour)));
}

// L1 or L1H2 mean that layer and that head, not L10 or L1H20; anything else is looked for in the name of the behaviour too.
function isIn(word, head, title, behaviour) {
  const site = head.toLowerCase();
  if (/^l\d+[hn]\d+$/.test(word)) return site === word;
  if (/^l\d+$/.test(word)) return site.startsWith(word + "h") || site.startsWith(word + "n");
  return `${site} ${title} ${behaviour}`.toLowerCase().includes(word);
}

function refresh() {
  const rows = matching();
  explorer.tBodies[0].replaceChildren(...rows.slice(0, shown).map(rowOf));
  more.hidden = rows.length <= shown;
  document.getElementById("count").value = `${rows.length} of ${every.rows.length} rows`;
}

const headings = document.createElement("tr");
every.columns.forEach(([title, numeric], column) => {
  const heading = element("th", "", numeric);
  heading.scope = "col";
  const button = element("button", title);
  button.type = "button";
  button.addEventListener("click", () => {
    const down = turn(heading);
    every.rows.sort((a, b) => compare(a[column + 3][0], b[column + 3][0], down));
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
