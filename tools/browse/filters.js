// Which pairs fit the filters, and in which order.
"use strict";

const PAIRS = INDEX.pairs;
const NUM_PAIRS = PAIRS.id.length;

// Scripts that write words without spaces between them: a word may begin anywhere.
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;

// " word word ...", in small letters and without signs.
function wordsOf(text) {
  const words = text.normalize("NFKC").toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
  return words.map((word) => ` ${word}`).join("");
}

const captionWords = new Map();
function wordsOfPair(pair) {
  if (!captionWords.has(pair)) captionWords.set(pair, wordsOf(PAIRS.caption[pair] ?? ""));
  return captionWords.get(pair);
}

// What was typed -> tests of a pair; all of them have to hold.
function wordTests(typed) {
  const terms = typed.matchAll(/(-?)(?:"([^"]*)"?|(\S+))/g);
  return [...terms].flatMap(([, minus, phrase, word]) => {
    const text = phrase ?? word;
    if (!text) return [];
    let test;
    if (phrase === undefined && text.startsWith("#")) {
      const sought = text.slice(1).toLowerCase();
      test = (pair) =>
        String(PAIRS.id[pair]) === sought ||
        INDEX.images.name[PAIRS.image[pair]].toLowerCase().includes(sought);
    } else {
      const words = wordsOf(text);
      if (!words || UNSPACED.test(words)) {
        const sought = text.toLowerCase();
        test = (pair) => (PAIRS.caption[pair] ?? "").toLowerCase().includes(sought);
      } else {
        test = (pair) => wordsOfPair(pair).includes(words);
      }
    }
    return [minus ? (pair) => !test(pair) : test];
  });
}

// Numbers of the pairs that fit.  filters: words, ranges {column: [low, high]} with null for open
// ends, verdict and state: a place in their lists, or null for any.
function fittingPairs(filters) {
  const tests = wordTests(filters.words);
  for (const [column, [low, high]] of Object.entries(filters.ranges)) {
    const values = PAIRS[column];
    if (low !== null) tests.push((pair) => values[pair] !== null && values[pair] >= low);
    if (high !== null) tests.push((pair) => values[pair] !== null && values[pair] <= high);
  }
  if (filters.verdict !== null) tests.push((pair) => PAIRS.verdict[pair] === filters.verdict);
  const states = INDEX.images.state;
  if (filters.state !== null) tests.push((pair) => states[PAIRS.image[pair]] === filters.state);
  const fitting = [];
  for (let pair = 0; pair < NUM_PAIRS; pair++) {
    if (tests.every((test) => test(pair))) fitting.push(pair);
  }
  return fitting;
}

const SORTS = {
  file: ["order of the file", (pair) => pair],
  caption: ["caption", wordsOfPair],
  people: ["people", (pair) => PAIRS.people[pair]],
  area: ["size of the person", (pair) => PAIRS.area[pair]],
  labelled: ["labelled keypoints", (pair) => PAIRS.labelled[pair]],
};
if (INDEX.predictions !== null) {
  SORTS.score = ["score", (pair) => PAIRS.score[pair]];
  SORTS.oks = ["OKS", (pair) => PAIRS.oks[pair]];
  SORTS.iou = ["mask IoU", (pair) => PAIRS.iou[pair]];
}

// Sorts in place; pairs without the value come last in either direction.
function sortPairs(pairs, sort, falling) {
  const value = SORTS[sort][1];
  const sign = falling ? -1 : 1;
  return pairs.sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a === null || b === null) return (a === null) - (b === null) || first - second;
    return sign * ((a > b) - (a < b)) || first - second;
  });
}

function counted(count, one, many) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

// What the fitting pairs amount to, in words.
function summaryOf(pairs) {
  const distinct = (column) => new Set(pairs.map((pair) => PAIRS[column][pair])).size;
  const parts = [
    `${pairs.length.toLocaleString("en")} of ${counted(NUM_PAIRS, "pair", "pairs")}`,
    counted(distinct("image"), "image", "images"),
    counted(distinct("person"), "person", "people"),
  ];
  if (INDEX.predictions === null || !pairs.length) return parts.join(" · ");
  const right = pairs.filter((pair) => verdictOf(pair) === "right").length;
  const judged = pairs.filter((pair) => PAIRS.judged[pair]).length;
  if (judged) {
    const share = `${((100 * right) / judged).toFixed(1)} %`;
    const [some, all] = [right, judged].map((count) => count.toLocaleString("en"));
    parts.push(`right person ${some} of ${all} (${share})`);
  }
  for (const [column, name] of [["oks", "OKS"], ["iou", "mask IoU"]]) {
    const values = pairs.map((pair) => PAIRS[column][pair]).filter((value) => value !== null);
    const sum = values.reduce((total, value) => total + value, 0);
    if (values.length) parts.push(`mean ${name} ${(sum / values.length).toFixed(3)}`);
  }
  return parts.join(" · ");
}

function verdictOf(pair) {
  return INDEX.verdicts[PAIRS.verdict[pair]];
}
