
// --- one head on a page: #L18H6. Everything comes from the JSON that the table of all heads is made of

const headPage = document.getElementById("head");
const number = new Map(atlas.heads.map((site, i) => [site, i]));
const QUESTIONS = { looks: 0, writes: 1, breaks: 2, partners: 3 };

function made(name, attributes, ...children) {
  const it = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) it.setAttribute(key, value);
  it.append(...children.filter((child) => child !== null && child !== undefined));
  return it;
}

function linkTo(site) {
  return made("a", { href: "#" + site, class: "head" }, site);
}

function markOf(behaviour, rung) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  for (const [key, value] of Object.entries({ class: "mark", viewBox: "-8 -8 16 16", width: 18, height: 18, "aria-hidden": "true" })) svg.setAttribute(key, value);
  svg.style.color = behaviour.colour;
  const shape = (kind, scale) => {
    const use = document.createElementNS(space, "use");
    use.setAttribute("href", "#mark-" + (behaviour.quiet ? "square" : behaviour.mark));
    use.setAttribute("class", kind);
    if (scale) use.setAttribute("transform", `scale(${scale})`);
    svg.append(use);
  };
  shape(behaviour.quiet ? "quiet" : rung >= 3 ? "full" : "open");
  if (rung === 2) shape("full", 0.42);
  return svg;
}

// --- its labels. of: the book (of heads, or of neurons) that it is in; me: its number there

function labelsOf(of, me) {
  const { behaviours } = of;
  const mine = of.labels.filter(([head]) => head === me).sort((a, b) => b[2] - a[2] || behaviours[a[1]].quiet - behaviours[b[1]].quiet);
  if (!mine.length) return made("p", { class: "lead" }, "No label. ", nearest(of, me));
  return made("ul", { class: "labels" }, ...mine.map(([, place, rung, q, note]) => {
    const behaviour = behaviours[place];
    const says = behaviour.says[0].toUpperCase() + behaviour.says.slice(1) + ".";
    const about = [`rung ${rung}, ${of.rungs[rung]}`, `q ${q}`, of.texts[note]].filter(Boolean).join(" · ");
    const link = made("a", { href: "#" + behaviour.kin }, behaviour.title);
    return made("li", {}, markOf(behaviour, rung), made("div", {}, made("strong", {}, link), " ", made("span", { class: "small" }, about), made("span", { class: "says" }, says)));
  }));
}

// A label needs all that it rests on: how far a kind is from its floor is told by what lies lowest.
function nearest(of, me) {
  const lowest = new Map();
  for (const row of of.rows) {
    if (row.head !== me || !row.series.decides || row.effect === null) continue;
    const times = row.effect / Number(row.series.floor);
    const before = lowest.get(row.series.behaviour);
    lowest.set(row.series.behaviour, before === undefined ? times : Math.min(before, times));
  }
  const best = [...lowest].sort((a, b) => b[1] - a[1])[0];
  if (!best || best[1] <= 0) return "Nothing that was measured of it comes near a floor.";
  return `Nearest to one: ${of.behaviours[best[0]].title}, at ${(100 * best[1]).toFixed(0)} % of its floor.`;
}

// --- its scores

function scoresOf(of, me, question) {
  const labelled = new Set(of.labels.filter(([head]) => head === me).map((label) => label[1]));
  const mine = of.rows.filter((row) => row.head === me && row.series.question === question && !(row.others !== null && row.series.question === QUESTIONS.partners));
  const first = (row) => (labelled.has(row.series.behaviour) ? 0 : row.above ? 1 : 2);
  mine.sort((a, b) => first(a) - first(b));
  const main = mine.filter((row) => first(row) < 2);
  const rest = mine.filter((row) => first(row) === 2);
  const parts = main.length ? [scoreTable(of, main, labelled)] : [];
  if (!main.length) parts.push(made("p", { class: "small" }, rest.length ? "Nothing here stands out from its floor." : of.nothing[question]));
  if (rest.length) parts.push(made("details", {}, made("summary", {}, `${rest.length}${main.length ? " more" : ""} that did not stand out`), scoreTable(of, rest, labelled)));
  return parts;
}

function times(row) {
  const floor = Number(row.series.floor);
  if (row.effect === null || !floor) return "–";
  const ratio = row.effect / floor;
  return (ratio < 0 ? "−" : "") + (Math.abs(ratio) >= 10 ? Math.abs(ratio).toFixed(0) : Math.abs(ratio).toFixed(1)) + "×";
}

function scoreTable(of, some, labelled) {
  const columns = ["", "measured", "effect [95 %]", "× floor", "floor", "score", "null", "q", "n"];
  const head = made("tr", {}, ...columns.map((text, i) => made("th", i > 1 ? { scope: "col", class: "number" } : { scope: "col" }, text)));
  const body = some.map((row) => {
    const { subject, material, unit, nullKind, floor, n } = row.series;
    const effect = made("span", {}, row.text, unit && unit !== "probability" ? made("small", {}, " " + unit) : null);
    const cell = (text, title) => made("td", title ? { class: "number", title } : { class: "number" }, text);
    return made("tr", labelled.has(row.series.behaviour) ? { class: "of-label" } : {},
      made("td", { title: row.above ? "above its floor, by its test" : "" }, row.above ? "✓" : ""),
      made("th", { scope: "row", title: of.texts[row.note] }, subject, made("small", {}, material)),
      cell(effect), cell(times(row)), cell(floor), cell(row.score), cell(row.compared, nullKind), cell(row.q), cell(String(n)));
  });
  return made("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores" }, made("table", { class: "scores" }, made("thead", {}, head), made("tbody", {}, ...body)));
}

// --- where it looks, token by token

function exampleOf([, place, unit, tokens, query, packed]) {
  const behaviour = behaviours[place];
  const at = unpacked(packed);
  const told = made("p", { class: "small", "aria-live": "polite" });
  const spans = tokens.map((token, i) => {
    const span = made("span", {}, token);
    span.addEventListener("mouseenter", () => look(i));
    span.addEventListener("click", () => look(i));
    return span;
  });
  let now = query;
  function look(row) {
    now = row;
    spans.forEach((span, key) => {
      const weight = at(row, key);
      span.style.backgroundColor = weight > 0.004 ? behaviour.colour + Math.round(40 + 190 * weight ** 0.6).toString(16).padStart(2, "0") : "";
      span.className = key === row ? "query" : key > row ? "later" : "";
    });
    const keys = tokens.map((token, key) => [token, at(row, key)]).sort((a, b) => b[1] - a[1]).slice(0, 3).filter(([, weight]) => weight >= 0.05);
    told.replaceChildren(made("code", {}, tokens[row]), " looks at ", ...keys.flatMap(([token, weight], i) => [i ? ", " : "", made("code", {}, token), " " + weight.toFixed(2)]), keys.length ? "" : "nothing in this stretch");
  }
  const text = made("p", { class: "tokens", tabindex: "0", role: "group", "aria-label": `${tokens.length} tokens of ${unit}; the arrow keys choose which one looks` }, ...spans);
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    look(Math.min(tokens.length - 1, Math.max(0, now + step)));
  });
  text.addEventListener("mouseleave", () => look(query < 0 ? tokens.length - 1 : query));
  look(query < 0 ? tokens.length - 1 : query);
  return made("div", { class: "looking" }, made("p", { class: "small" }, made("strong", {}, behaviour.title), `, on ${unit}`), text, told);
}

// --- what it writes there

function writtenBy([, place, , tokens, query, , raised, lowered, byWeights]) {
  const list = (some) => made("span", {}, ...some.flatMap(([token, logit]) => [made("code", {}, token), made("small", {}, " " + logit + "  ")]));
  const parts = [];
  if (query >= 0 && raised.length) {
    parts.push(made("p", {}, "At ", made("code", {}, tokens[query]), made("span", { class: "small" }, ` (${behaviours[place].title})`), " it raises ", list(raised), made("br"), "and lowers ", list(lowered)));
  }
  if (byWeights.length) {
    const verb = byWeights[0][2].startsWith("−") ? "lowers" : "raises";
    parts.push(made("p", {}, `By its weights, reading a token ${verb} most: `, ...byWeights.flatMap(([read, token], i) => [i ? ", " : "", made("code", {}, read), " → ", made("code", {}, token)])));
  }
  return parts;
}

// --- its partners

function partnersOf(me) {
  const mine = rows.filter((row) => row.others !== null && (row.head === me || row.others.includes(me)));
  if (!mine.length) return made("p", { class: "small" }, "None that was measured.");
  mine.sort((a, b) => b.above - a.above || series.indexOf(a.series) - series.indexOf(b.series) || Math.abs(b.effect) - Math.abs(a.effect));
  const said = new Set();
  const items = [];
  for (const row of mine) {
    const forth = row.head === me;
    const words = forth ? row.series.ofPair : row.series.byPair;
    const named = forth ? row.others : row.series.question === QUESTIONS.partners ? [row.head] : [row.head, ...row.others]; // of a group, all others
    const shown = [...new Set(named)].filter((head) => head !== me && typeof head === "number");
    const key = [words, [...shown].sort(), row.text].join();
    if (!words || said.has(key) || !shown.length) continue;
    said.add(key);
    const about = `${row.text} ${row.series.unit} (floor ${row.series.floor}, ${row.series.material})`;
    const [before, after] = words.split("{}");
    const links = shown.sort((a, b) => a - b).flatMap((head, i) => [i ? ", " : "", linkTo(atlas.heads[head])]);
    items.push(made("li", {}, row.above ? "✓ " : "", before, ...links, after, made("span", { class: "small" }, " " + about)));
  }
  const PART = 12;
  const list = (some) => made("ul", { class: "partners" }, ...some);
  if (items.length <= PART) return list(items);
  return made("div", {}, list(items.slice(0, PART)), made("details", {}, made("summary", {}, `${items.length - PART} weaker ones`), list(items.slice(PART))));
}

// --- the page

function sectionOf(heading, ...children) {
  return made("section", {}, made("h2", {}, heading), ...children.filter((child) => child));
}

function pageOf(site) {
  const me = number.get(site);
  const [, layer, head] = /^L(\d+)H(\d+)$/.exec(site);
  const [, layers, heads] = /^L(\d+)H(\d+)$/.exec(atlas.heads[atlas.heads.length - 1]).map(Number);
  const examples = atlas.examples.filter(([of]) => of === me);
  const step = (by, words) => (atlas.heads[me + by] ? made("a", { href: "#" + atlas.heads[me + by] }, words(atlas.heads[me + by])) : null);
  const ofLayer = rows.filter((row) => row.head === "L" + layer);
  const written = examples.flatMap(writtenBy);
  return [
    made("nav", { "aria-label": "Heads" }, made("a", { href: "#map" }, "The whole model"), step(-1, (other) => "← " + other), step(1, (other) => other + " →")),
    made("p", { class: "eyebrow" }, `Head ${head} of ${heads + 1} in layer ${layer} of ${layers + 1}, both counted from zero`),
    made("h1", { tabindex: "-1" }, site),
    labelsOf(atlas, me),
    sectionOf(atlas.questions[0], ...examples.map(exampleOf), examples.length ? made("p", { class: "small" }, "The outlined token looks; the stronger the colour, the more it looks there. Point at another token, or use the arrow keys. These stretches were chosen because the head is at work in them.") : null, ...scoresOf(atlas, me, 0)),
    sectionOf(atlas.questions[1], ...written, written.length ? made("p", { class: "small" }, "Direct effect of this head alone on the logits, less the mean over the vocabulary, with the final norm held. What later layers make of it is not told.") : null, ...scoresOf(atlas, me, 1)),
    sectionOf(atlas.questions[2], ...scoresOf(atlas, me, 2)),
    sectionOf(atlas.questions[3], partnersOf(me)),
    ofLayer.length ? sectionOf("Its layer, L" + layer, scoreTable(atlas, ofLayer, new Set())) : null,
    made("p", { class: "small" }, "✓: above its floor, by its test. An effect is a score less its null, with a 95 % interval over documents; × floor says how many times the floor it is. Bold: what a label rests on. ",
      atlas.left_out ? `Scores below ${atlas.below} of their floor are not on this page (${atlas.left_out} of all heads together); findings.parquet has them.` : ""),
  ].filter(Boolean);
}
