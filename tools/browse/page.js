// The page: filters, the grid of which only the visible cards exist, the large view, keys.
"use strict";

const HAS_RESULTS = INDEX.predictions !== null;
const MOST_CARDS = 20000; // browsers limit how tall a page may be
const GAP = 12;
const CARD_WIDTH = 270; // at least, where the window allows it
const CARD_FOOT = 96;

const LAYERS = [
  ["skeleton", "s", "Skeleton", true],
  ["mask", "m", "Mask", true],
  ["box", "x", "Box", false],
  ["scribble", "b", "Scribbles", !HAS_RESULTS],
  ...(HAS_RESULTS
    ? [["truth", "t", "Ground truth", true], ["result", "p", "Prediction", true],
       ["sides", "v", "Side by side", true]]
    : []),
];

const STATE_WORDS = {
  missing: "The image is missing",
  unreadable: "The image cannot be read",
  "wrong size": "Nothing is drawn: the image is of another size than its entry says",
};

const VERDICT_WORDS = {
  right: "✓ right person",
  wrong: "✗ wrong person",
  nothing: "nothing found",
  alone: "alone",
  unlabelled: "no keypoints",
};

const find = (id) => document.getElementById(id);
const root = document.documentElement;

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // never as HTML: captions are anybody's
  return element;
}

// --- pieces of data: scripts, since a page from a folder may not fetch ---------------------------

const pieces = new Map();
const receivers = new Map();

function receive(kind, number, values) {
  receivers.get(`${kind}_${number}`)(values);
}

// Item `number` of "people" or "results"; null if its piece is missing.
async function item(kind, number) {
  const place = Math.floor(number / INDEX.piece);
  const key = `${kind}_${place}`;
  if (!pieces.has(key)) {
    pieces.set(key, new Promise((resolve) => {
      receivers.set(key, resolve);
      const script = make("script");
      script.src = `browse_files/${kind}_${String(place).padStart(5, "0")}.js`;
      script.onerror = () => resolve(null);
      document.head.append(script);
    }));
  }
  const values = await pieces.get(key);
  return values === null ? null : values[number % INDEX.piece];
}

// --- one image with what is drawn on it ----------------------------------------------------------

// kinds: of "truth" and "result", those to draw.
function drawing(pair, kinds, magnify) {
  const image = PAIRS.image[pair];
  const { prefix, link, name } = INDEX.images;
  const state = INDEX.states[INDEX.images.state[image]];
  const box = make("span", "drawing");
  const say = (text) => box.append(make("span", "problem", `${text} (${name[image]})`));
  if (state === "fine" || state === "wrong size") {
    const img = make("img");
    img.loading = "lazy";
    img.decoding = "async";
    img.alt = "";
    img.onerror = () => say("The image does not load here");
    img.src = prefix + link[image];
    box.append(img);
  }
  if (state !== "fine") {
    say(STATE_WORDS[state]);
    return box;
  }
  const wanted = kinds.map(async (kind) => [
    kind === "truth" ? await item("people", PAIRS.person[pair]) : await item("results", pair), kind,
  ]);
  Promise.all(wanted).then((people) => {
    const there = people.filter(([person]) => person !== null);
    const svg = overlay(image, there, magnify);
    if (there.length > 1) svg.classList.add("both");
    box.append(svg);
  });
  return box;
}

// --- the grid ------------------------------------------------------------------------------------

let fitting = []; // pairs, in the order in which they are shown
let current = 0; // place in `fitting`
let gridShape = { columns: 1, width: CARD_WIDTH, height: CARD_WIDTH };
const cards = new Map(); // place in `fitting` -> element

function measure() {
  const width = find("grid").clientWidth;
  const columns = Math.max(1, Math.floor((width + GAP) / (CARD_WIDTH + GAP)));
  const card = (width - GAP * (columns - 1)) / columns;
  gridShape = { columns, width: card, height: Math.round(card * 0.78) + CARD_FOOT };
  const rows = Math.ceil(fitting.length / columns);
  find("grid").style.height = `${Math.max(0, rows * (gridShape.height + GAP) - GAP)}px`;
}

function makeCard(place) {
  const pair = fitting[place];
  const card = make("button", "card");
  card.type = "button";
  card.setAttribute("role", "listitem");
  card.setAttribute("aria-posinset", place + 1);
  card.setAttribute("aria-setsize", fitting.length);
  card.append(drawing(pair, HAS_RESULTS ? ["truth", "result"] : ["truth"], 1.4));
  const caption = make("span", "caption", PAIRS.caption[pair] ?? "(no caption)");
  caption.dir = "auto";
  const facts = make("span", "facts");
  if (HAS_RESULTS) {
    const words = VERDICT_WORDS[verdictOf(pair)].replace(" person", "");
    facts.append(make("b", `verdict ${verdictOf(pair)}`, words));
    for (const [column, name] of [["score", "score"], ["oks", "OKS"], ["iou", "IoU"]]) {
      const value = PAIRS[column][pair];
      if (value !== null) facts.append(make("span", "", `${name} ${value.toFixed(2)}`));
    }
  } else {
    facts.append(make("span", "", `image id ${PAIRS.id[pair]}`));
    facts.append(make("span", "", counted(PAIRS.people[pair], "person", "people")));
    facts.append(make("span", "", counted(PAIRS.labelled[pair], "keypoint", "keypoints")));
  }
  card.append(caption, facts);
  card.onclick = () => openLarge(place);
  const { columns, width, height } = gridShape;
  card.style.width = `${width}px`;
  card.style.height = `${height}px`;
  card.style.left = `${(place % columns) * (width + GAP)}px`;
  card.style.top = `${Math.floor(place / columns) * (height + GAP)}px`;
  return card;
}

// Make the cards that are seen, or nearly, and remove the others.
function render() {
  const { columns, height } = gridShape;
  const above = -find("grid").getBoundingClientRect().top;
  const first = Math.floor(above / (height + GAP) - 0.5) * columns;
  const last = Math.ceil((above + window.innerHeight) / (height + GAP) + 0.5) * columns;
  const focused = document.activeElement?.classList.contains("card");
  for (const [place, card] of cards) {
    if (place < first || place >= last) {
      card.remove();
      cards.delete(place);
    }
  }
  for (let place = Math.max(0, first); place < Math.min(last, fitting.length); place++) {
    if (!cards.has(place)) {
      cards.set(place, makeCard(place));
      find("grid").append(cards.get(place));
    }
    cards.get(place).tabIndex = place === current ? 0 : -1;
  }
  if (!cards.has(current) && cards.size) cards.values().next().value.tabIndex = 0;
  if (focused && cards.has(current)) cards.get(current).focus({ preventScroll: true });
}

function redraw() {
  for (const card of cards.values()) card.remove();
  cards.clear();
  measure();
  render();
}

function moveTo(place) {
  if (!fitting.length) return;
  current = Math.min(Math.max(place, 0), fitting.length - 1);
  const { columns, height } = gridShape;
  const top = Math.floor(current / columns) * (height + GAP);
  const above = -find("grid").getBoundingClientRect().top;
  const covered = find("top").getBoundingClientRect().bottom + GAP;
  if (top - above < covered) window.scrollBy(0, top - above - covered);
  if (top + height - above > window.innerHeight) {
    window.scrollBy(0, top + height + GAP - above - window.innerHeight);
  }
  render();
  cards.get(current)?.focus({ preventScroll: true });
}

// --- filters -------------------------------------------------------------------------------------

let falling = false;

function readFilters() {
  const ranges = {};
  for (const set of document.querySelectorAll("#filters fieldset")) {
    const ends = [...set.querySelectorAll("input")].map((input) =>
      input.value === "" ? null : Number(input.value));
    if (ends.some((end) => end !== null)) ranges[set.dataset.column] = ends;
  }
  const place = (id) => (find(id).value === "" ? null : Number(find(id).value));
  return { words: find("words").value, ranges, verdict: place("verdict"), state: place("state") };
}

function update() {
  const filters = readFilters();
  const all = fittingPairs(filters);
  sortPairs(all, find("sort").value, falling);
  fitting = all.slice(0, MOST_CARDS);
  current = 0;
  find("count").textContent = summaryOf(all);
  find("direction").textContent = falling ? "↓" : "↑";
  const message = find("message");
  message.hidden = all.length > 0 && all.length === fitting.length;
  if (!all.length) {
    message.textContent =
      `No pair fits all of this: ${reasons(filters)}. Change a filter, or press Clear to see ` +
      `all ${NUM_PAIRS.toLocaleString("en")} pairs.`;
  } else if (!message.hidden) {
    message.textContent =
      `The first ${MOST_CARDS.toLocaleString("en")} are shown; filter to see the others.`;
  }
  remember(filters);
  window.scrollTo(0, 0);
  redraw();
}

// The filters that are set, in words.
function reasons(filters) {
  const set = [];
  if (filters.words.trim()) set.push(`words ${filters.words.trim()}`);
  for (const [column, [low, high]] of Object.entries(filters.ranges)) {
    const name = { people: "people", score: "score", oks: "OKS", iou: "mask IoU" }[column];
    set.push(low === null ? `${name} up to ${high}` : high === null ? `${name} from ${low}`
      : `${name} from ${low} to ${high}`);
  }
  if (filters.verdict !== null) set.push(VERDICT_WORDS[INDEX.verdicts[filters.verdict]]);
  if (filters.state !== null) set.push(`image ${INDEX.states[filters.state]}`);
  return set.join(", ");
}

// The filters are kept in the address, so that a view can be reloaded and bookmarked.
function remember(filters) {
  const kept = new URLSearchParams();
  if (filters.words) kept.set("words", filters.words);
  for (const [column, ends] of Object.entries(filters.ranges)) {
    kept.set(column, ends.map((end) => end ?? "").join(".."));
  }
  for (const id of ["verdict", "state"]) if (find(id).value) kept.set(id, find(id).value);
  if (find("sort").value !== "file" || falling) {
    kept.set("sort", find("sort").value + (falling ? "-" : ""));
  }
  if (find("large").open) kept.set("open", PAIRS.id[fitting[current]]);
  history.replaceState(null, "", `#${kept}`);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  find("words").value = kept.get("words") ?? "";
  for (const set of document.querySelectorAll("#filters fieldset")) {
    const ends = (kept.get(set.dataset.column) ?? "").split("..");
    set.querySelectorAll("input").forEach((input, i) => (input.value = ends[i] ?? ""));
  }
  for (const id of ["verdict", "state"]) find(id).value = kept.get(id) ?? "";
  const sort = kept.get("sort") ?? "file";
  falling = sort.endsWith("-");
  find("sort").value = sort.replace("-", "");
  if (!find("sort").value) find("sort").value = "file";
  update();
  const open = fitting.findIndex((pair) => String(PAIRS.id[pair]) === kept.get("open"));
  if (open >= 0) openLarge(open);
}

// --- the large view ------------------------------------------------------------------------------

function openLarge(place) {
  current = Math.min(Math.max(place, 0), fitting.length - 1);
  const pair = fitting[current];
  find("place").textContent =
    `${(current + 1).toLocaleString("en")} of ${fitting.length.toLocaleString("en")}`;
  find("previous").disabled = current === 0;
  find("next").disabled = current === fitting.length - 1;
  find("large_caption").textContent = PAIRS.caption[pair] ?? "(no caption)";
  fillPanels();
  fillFacts(pair);
  fillOthers(pair);
  if (!find("large").open) {
    find("large").showModal();
    find("large").focus(); // and no button of it, which Enter would press
  }
  remember(readFilters());
}

function fillPanels() {
  const pair = fitting[current];
  const apart = HAS_RESULTS && isOn("sides") && isOn("truth") && isOn("result");
  const views = apart ? [["result"], ["truth"]] : [HAS_RESULTS ? ["truth", "result"] : ["truth"]];
  find("panels").replaceChildren(
    ...views.map((kinds) => {
      const panel = make("figure", "");
      if (apart) {
        panel.append(make("figcaption", "", kinds[0] === "truth" ? "Ground truth" : "Prediction"));
      }
      panel.append(drawing(pair, kinds, apart ? 1 : 0.8));
      return panel;
    }));
}

function fillFacts(pair) {
  const image = PAIRS.image[pair];
  const { name, width, height, state } = INDEX.images;
  const share = (value) => (value === null ? "–" : value.toFixed(3));
  const facts = [
    ["Image id", PAIRS.id[pair]],
    ["Annotation id", PAIRS.annotation[pair] ?? "–"],
    ["File", name[image]],
    ["Image", `${width[image]} × ${height[image]} pixels, ${INDEX.states[state[image]]}`],
    ["People in it", PAIRS.people[pair]],
    ["Person", `${PAIRS.area[pair]} % of the image, ` +
      `${PAIRS.labelled[pair]} of ${INDEX.skeleton.names.length} keypoints labelled`],
  ];
  if (HAS_RESULTS) {
    facts.unshift(
      ["Verdict", VERDICT_WORDS[verdictOf(pair)]],
      ["Score", share(PAIRS.score[pair])],
      ["OKS", share(PAIRS.oks[pair])],
      ["Mask IoU", share(PAIRS.iou[pair])]);
  }
  find("facts").replaceChildren(
    ...facts.flatMap(([key, value]) => [make("dt", "", key), make("dd", "", value)]));
  if (HAS_RESULTS) find("facts").children[1].classList.add("verdict", verdictOf(pair));
}

// All pairs of the same image; those that the filters leave out cannot be gone to.
function fillOthers(pair) {
  const image = PAIRS.image[pair];
  const lines = [];
  for (let other = 0; other < NUM_PAIRS; other++) {
    if (PAIRS.image[other] !== image) continue;
    const line = make("li");
    const place = fitting.indexOf(other);
    const button = make("button", "other", PAIRS.caption[other] ?? "(no caption)");
    button.dir = "auto";
    button.type = "button";
    button.disabled = place < 0;
    button.title = place < 0 ? "does not fit the filters" : "";
    button.onclick = () => openLarge(place);
    if (other === pair) button.setAttribute("aria-current", "true");
    line.append(button);
    if (PAIRS.person[other] === PAIRS.person[pair] && other !== pair) {
      line.append(make("small", "", "same person"));
    }
    lines.push(line);
  }
  find("others").replaceChildren(...lines);
}

// --- what is drawn -------------------------------------------------------------------------------

const isOn = (layer) => !root.classList.contains(`without_${layer}`);

function setLayer(layer, on) {
  root.classList.toggle(`without_${layer}`, !on);
  for (const button of document.querySelectorAll(`.toggles [data-layer=${layer}]`)) {
    button.setAttribute("aria-pressed", on);
  }
  if (find("large").open && ["truth", "result", "sides"].includes(layer)) fillPanels();
}

function makeToggles(parent, layers) {
  for (const [layer, key, name] of layers) {
    const button = make("button", "", name);
    button.type = "button";
    button.dataset.layer = layer;
    button.title = `key ${key}`;
    button.onclick = () => setLayer(layer, !isOn(layer));
    parent.append(button);
  }
}

function turnTheme() {
  const dark = getComputedStyle(root).colorScheme === "dark" ||
    (root.style.colorScheme === "" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
}

// --- keys ----------------------------------------------------------------------------------------

const KEYS = [
  ["← → or k j", "the pair before, after"],
  ["↑ ↓ Home End", "up and down, first and last (in the grid)"],
  ["Enter", "show the pair large"],
  ["Esc", "close it; leave a field"],
  ["/", "to the words"],
  ["r", "turn the order round"],
  ...LAYERS.map(([, key, name]) => [key, `${name} on or off`]),
  ["d", "dark or light"],
  ["?", "this help"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const go = find("large").open ? openLarge : moveTo;
  const step = { ArrowLeft: -1, k: -1, ArrowRight: 1, j: 1 }[event.key];
  const layer = LAYERS.find(([, key]) => key === event.key);
  if (step) go(current + step);
  else if (layer) setLayer(layer[0], !isOn(layer[0]));
  else if (event.key === "d") turnTheme();
  else if (event.key === "?") find("help").showModal();
  else if (find("large").open) return;
  else if (event.key === "ArrowUp") moveTo(current - gridShape.columns);
  else if (event.key === "ArrowDown") moveTo(current + gridShape.columns);
  else if (event.key === "Home") moveTo(0);
  else if (event.key === "End") moveTo(fitting.length - 1);
  else if (event.key === "/") find("words").focus();
  else if (event.key === "r") find("direction").click();
  else return;
  event.preventDefault();
}

// --- beginning -----------------------------------------------------------------------------------

function option(value, text) {
  const element = make("option", "", text);
  element.value = value;
  return element;
}

function begin() {
  document.title = `${INDEX.title} – RefHuman`;
  find("title").textContent = INDEX.title;
  find("source").textContent = HAS_RESULTS ? `with the results of ${INDEX.predictions}` : "";
  root.classList.toggle("without_results", !HAS_RESULTS);
  const states = INDEX.images.state;
  const wrong = states.some((state) => state !== 0);
  root.classList.toggle("without_states", !wrong);
  for (const [name, color] of Object.entries(INDEX.colors)) {
    root.style.setProperty(`--${name}`, color);
  }
  const amount = (values, value) => values.filter((other) => other === value).length;
  find("state").append(option("", "any"), ...INDEX.states.map((name, number) =>
    option(number, `${name} (${amount(states, number).toLocaleString("en")})`)));
  find("verdict").append(option("", "any"));
  if (HAS_RESULTS) {
    const notJudged = { alone: "alone: not judged", unlabelled: "no keypoints: not judged" };
    const words = { ...VERDICT_WORDS, ...notJudged };
    find("verdict").append(...INDEX.verdicts.map((name, number) =>
      option(number, `${words[name]} (${amount(PAIRS.verdict, number).toLocaleString("en")})`)));
  }
  find("sort").append(...Object.entries(SORTS).map(([key, [name]]) => option(key, name)));
  makeToggles(find("toggles"), LAYERS.filter(([layer]) => layer !== "sides"));
  makeToggles(find("large_toggles"), LAYERS);
  for (const [layer, , , on] of LAYERS) setLayer(layer, on);
  for (const [key, meaning] of KEYS) {
    const row = make("tr");
    row.append(make("th", "", key), make("td", "", meaning));
    find("keys").append(row);
  }

  let waiting;
  find("filters").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120); // until somebody stops typing
  });
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("reset", () => {
    falling = false;
    setTimeout(update);
  });
  find("direction").onclick = () => {
    falling = !falling;
    update();
  };
  find("theme").onclick = turnTheme;
  find("help_button").onclick = () => find("help").showModal();
  find("previous").onclick = () => openLarge(current - 1);
  find("next").onclick = () => openLarge(current + 1);
  find("close").onclick = () => find("large").close();
  find("large").addEventListener("close", () => {
    remember(readFilters());
    moveTo(current);
  });
  find("large").addEventListener("click", (event) => {
    if (event.target === find("large")) find("large").close(); // the shade around it
  });
  document.addEventListener("keydown", onKey);
  let frame = 0;
  window.addEventListener("scroll", () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(render);
  }, { passive: true });
  new ResizeObserver(redraw).observe(find("grid"));
  window.addEventListener("hashchange", recall);
  recall();
}

begin();
