
// --- all feed-forward neurons: a table of any length, of which only the rows in view exist; and the page of one neuron

const ROW = 31; // pixels: the height of a row, as in style.css
const neurons = document.getElementById("data-neurons") ? book("data-neurons") : null;
if (neurons) neurons.nothing = ["It came near to no kind, so that none was tested.", "What it writes was not tested for a kind.", "It was not ablated in this scan."];

function isNeuron(site) {
  const found = neurons && /^L(\d+)N(\d+)$/.exec(site);
  return Boolean(found) && Number(found[1]) < neurons.layers && Number(found[2]) < neurons.across;
}

function neuronSite(number) {
  return `L${Math.floor(number / neurons.across)}N${number % neurons.across}`;
}

// Three digits, and a true minus sign.
function short(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace("-", "−") : "–";
}

function percent(thousandths) {
  return (thousandths / 10).toFixed(1).replace("-", "−") + " %";
}

// A whole number with thin spaces between thousands, as in numbers.py.
function counted(number) {
  return number.toLocaleString("en").replaceAll(",", "\u202f");
}

// --- numbers of all neurons, unpacked once, when they are first needed

async function unpack(packed, Type) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

const TYPES = { place: Uint32Array, largest: Float32Array, writes: Float32Array };
let unpackedColumns = null;

function columnsOfNeurons() {
  unpackedColumns ??= (async () => {
    const names = Object.keys(neurons.columns);
    const arrays = await Promise.all(names.map((name) => unpack(neurons.columns[name], TYPES[name] || Int16Array)));
    const found = Object.fromEntries(names.map((name, i) => [name, arrays[i]]));
    found.place.forEach((step, row) => { found.place[row] = row ? found.place[row - 1] + step : step - 1; }); // from steps to numbers
    found.shares = neurons.families.map((_, i) => found["share" + i]);
    found.row = new Map(Array.from(found.place, (number, row) => [number, row]));
    strongest(found);
    return found;
  })();
  return unpackedColumns;
}

// Of each neuron the family that explains most, where any explains anything.
function strongest(found) {
  found.explained = new Int16Array(found.place.length);
  found.family = new Int8Array(found.place.length).fill(-1);
  found.shares.forEach((share, family) => share.forEach((value, row) => {
    if (value > found.explained[row]) { found.explained[row] = value; found.family[row] = family; }
  }));
}

// --- the table

const every_neuron = document.getElementById("every-neuron");

async function tableOfNeurons() {
  const found = await columnsOfNeurons();
  const labels = new Map(); // number -> its labels, the highest rung first
  for (const label of neurons.labels) labels.set(label[0], [...(labels.get(label[0]) || []), label].sort((a, b) => b[2] - a[2]));
  const named = (row) => labels.get(found.place[row]) || [];
  const words = (row) => named(row).map(([, place]) => neurons.behaviours[place].title).join(", ");
  const family = (row) => (found.family[row] < 0 ? "" : neurons.families[found.family[row]]);
  const columns = [ // title, is it a number, what to sort by (null: nothing there), what is printed
    ["neuron", false, (row) => found.place[row], (row) => neuronSite(found.place[row])],
    ["labels", false, (row) => words(row) || null, words],
    ["goes with", false, (row) => family(row) || null, family],
    ["explains", true, (row) => found.explained[row], (row) => percent(found.explained[row])],
    ["largest |a|", true, (row) => found.largest[row], (row) => short(found.largest[row])],
    ["above zero", true, (row) => found.active[row], (row) => percent(found.active[row])],
    ["writes", true, (row) => (Number.isNaN(found.writes[row]) ? null : found.writes[row]), (row) => short(found.writes[row])],
  ];
  const view = document.getElementById("neurons-view");
  const [table] = view.getElementsByTagName("table");
  const form = document.getElementById("neuron-filters");
  let order = Array.from(found.place, (_, row) => row); // of all rows
  let shown = order; // of those that match

  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 10);
    const last = Math.min(shown.length, first + Math.ceil(view.clientHeight / ROW) + 20);
    const space = (rows) => made("tr", { class: "space", "aria-hidden": "true" }, made("td", { colspan: String(columns.length), style: `height: ${rows * ROW}px` }));
    const some = shown.slice(first, last).map((row, i) => {
      const site = neuronSite(found.place[row]);
      const cells = columns.map(([, numeric, , text], column) => made(column ? "td" : "th", { ...(numeric ? { class: "number" } : {}), ...(column ? {} : { scope: "row" }) }, column ? text(row) : linkTo(site)));
      return made("tr", { "data-site": site, "aria-rowindex": String(first + i + 2) }, ...cells);
    });
    table.tBodies[0].replaceChildren(space(first), ...some, space(shown.length - last));
  }

  function refresh() {
    const wanted = form.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = form.kind.value, labelled = form.labelled.checked;
    shown = order.filter((row) => {
      if ((labelled || kind) && !labels.has(found.place[row])) return false;
      if (kind && !named(row).some(([, place]) => neurons.behaviours[place].kin === kind)) return false;
      return wanted.every((word) => isIn(word, neuronSite(found.place[row]), words(row), family(row)));
    });
    view.scrollTop = 0;
    table.setAttribute("aria-rowcount", String(shown.length + 1));
    document.getElementById("neuron-count").value = `${counted(shown.length)} of ${counted(order.length)}`;
    draw();
  }

  function sort(column, down) {
    const keys = order.map(columns[column][2]); // by place in `order`
    const places = keys.map((_, i) => i).sort((a, b) => compare(keys[a], keys[b], down));
    order = places.map((i) => order[i]);
  }

  const headings = columns.map(([text, numeric], column) => {
    const button = made("button", { type: "button" }, text);
    const heading = made("th", { scope: "col", class: numeric ? "number" : "" }, button);
    button.addEventListener("click", () => { sort(column, turn(heading)); refresh(); });
    return heading;
  });
  table.tHead.replaceChildren(made("tr", {}, ...headings));
  sort(3, turn(headings[3])); // the best explained first
  let waits = false;
  view.addEventListener("scroll", () => {
    if (!waits) requestAnimationFrame(() => { waits = false; draw(); });
    waits = true;
  });
  addEventListener("resize", draw);
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-site]");
    if (row && !event.target.closest("a")) location.hash = row.dataset.site;
  });
  for (const name of ["input", "change"]) form.addEventListener(name, refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  refresh();
}

if (every_neuron) {
  new IntersectionObserver((entries, watch) => {
    if (entries.some((entry) => entry.isIntersecting)) { watch.disconnect(); tableOfNeurons(); }
  }, { rootMargin: "800px" }).observe(every_neuron);
}

// --- the page of one neuron

function contextOf([unit, tokens, at, position, value]) {
  const text = tokens.flatMap((token, i) => [made("span", i === at ? { class: "query" } : {}, neurons.tokens[token])]);
  const about = made("p", { class: "small" }, `${value} at token ${position} of ${neurons.texts[unit]}`);
  return made("div", { class: "looking" }, about, made("p", { class: "tokens" }, ...text));
}

function writtenByNeuron([, side, , raised, lowered]) {
  if (!raised.length) return [];
  const list = (some) => made("span", {}, ...some.flatMap(([token, logit]) => [made("code", {}, token), made("small", {}, " " + logit + "  ")]));
  const where = side > 0 ? "Where it is strongest" : "Where it is strongest (below zero)";
  return [
    made("p", {}, where, " it raises ", list(raised), made("br"), "and lowers ", list(lowered)),
    made("p", { class: "small" }, "By its weights: logits per unit of its activation, less the mean over the vocabulary, in a stream of unit scale. What later layers make of it is not told."),
  ];
}

// How much of its activation each family explains, and how large it gets; filled in when the numbers are unpacked.
function numbersOf(me) {
  const place = made("div", { class: "numbers", "aria-live": "polite" });
  columnsOfNeurons().then((found) => {
    const row = found.row.get(me);
    if (row === undefined) { place.append(made("p", { class: "small" }, "Its numbers are not on this page; the atlas has them.")); return; }
    const facts = [["largest activation", short(found.largest[row])], ["tokens on which it is above zero", percent(found.active[row])], ["norm of what one standard deviation writes", short(found.writes[row])]];
    const shares = neurons.families.map((family, i) => [found.shares[i][row], family]).sort((a, b) => b[0] - a[0]);
    place.append(
      made("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [made("dt", {}, name), made("dd", {}, value)])),
      made("h3", {}, "Of its variance, beyond all else"),
      made("ul", { class: "shares" }, ...shares.map(([share, family]) => made("li", {}, made("span", {}, family), made("span", { class: "number" }, share > 0 ? percent(share) : "none"), made("i", { style: `width: ${Math.max(0, share / 10)}%` })))),
    );
  });
  return place;
}

function pageOfNeuron(site) {
  const [, layer, index] = /^L(\d+)N(\d+)$/.exec(site).map(Number);
  const me = layer * neurons.across + index;
  const says = neurons.says[me];
  const example = neurons.examples.find(([of]) => of === me);
  const step = (to, words) => (to >= 0 && to < neurons.layers * neurons.across ? made("a", { href: "#" + neuronSite(to) }, words(neuronSite(to))) : null);
  return [
    made("nav", { "aria-label": "Neurons" }, made("a", { href: "#neurons" }, "All neurons"), step(me - 1, (other) => "← " + other), step(me + 1, (other) => other + " →")),
    made("p", { class: "eyebrow" }, `Feed-forward neuron ${index} of ${neurons.across} in layer ${layer} of ${neurons.layers}, both counted from zero`),
    made("h1", { tabindex: "-1" }, site),
    says ? made("p", { class: "lead" }, says + ".") : null,
    labelsOf(neurons, me),
    sectionOf(neurons.questions[0], numbersOf(me), ...scoresOf(neurons, me, 0)),
    example && example[2].length ? sectionOf("Where it is strongest", ...example[2].map(contextOf), made("p", { class: "small" }, "The outlined token is where its activation is largest, in one document each: these illustrate and prove nothing.")) : null,
    sectionOf(neurons.questions[1], ...(example ? writtenByNeuron(example) : []), ...scoresOf(neurons, me, 1)),
    sectionOf(neurons.questions[2], ...scoresOf(neurons, me, 2)),
    made("p", { class: "small" }, "✓: above its floor, by its test. An effect is a score less its null, with a 95 % interval over documents; × floor says how many times the floor it is. Bold: what a label rests on. ",
      neurons.rows_left ? `Scores below ${neurons.below} of their floor are not on this page (${neurons.rows_left} of all neurons together); findings.parquet has them.` : ""),
  ].filter(Boolean);
}
