// Annotations and results as SVG over an image, in its pixels.  Coordinates come in tenths.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, children = []) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// COCO's compressed run-length code -> lengths of the runs down the columns, first outside.
function decodeRuns(counts) {
  const runs = [];
  for (let place = 0; place < counts.length; ) {
    let value = 0, shift = 0, bits;
    do {
      bits = counts.charCodeAt(place++) - 48;
      value += (bits & 31) * 2 ** shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16) value -= 2 ** shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

// Runs -> for every column x with pixels inside: [start, end, start, end, ...] rows, end excluded.
function columnsOf(runs, height) {
  const columns = new Map();
  let pixel = 0;
  runs.forEach((run, number) => {
    for (let start = pixel; number % 2 && start < pixel + run; ) {
      const x = Math.floor(start / height);
      const end = Math.min(pixel + run, (x + 1) * height);
      if (!columns.has(x)) columns.set(x, []);
      columns.get(x).push(start - x * height, end - x * height);
      start = end;
    }
    pixel += run;
  });
  return columns;
}

// A run-length code -> path of its area, and path of its edges, which run between pixels.
function pathsOfCode(counts, height) {
  const columns = columnsOf(decodeRuns(counts), height);
  let area = "", edges = "";
  for (const [x, rows] of columns) {
    for (let i = 0; i < rows.length; i += 2) {
      area += `M${x} ${rows[i]}h1V${rows[i + 1]}h-1z`;
      edges += `M${x} ${rows[i]}h1M${x} ${rows[i + 1]}h1`;
    }
  }
  // Between two columns there is an edge where exactly one of them is inside.
  const borders = new Set([...columns.keys()].flatMap((x) => [x, x + 1]));
  for (const x of borders) {
    const ends = [...(columns.get(x - 1) ?? []), ...(columns.get(x) ?? [])].sort((a, b) => a - b);
    for (let i = 0; i < ends.length; i += 2) {
      if (ends[i] < ends[i + 1]) edges += `M${x} ${ends[i]}V${ends[i + 1]}`;
    }
  }
  return { areas: [area], edges: [edges] };
}

function pathOfPoints(tenths, close) {
  const points = [];
  for (let i = 0; i < tenths.length; i += 2) points.push(`${tenths[i] / 10} ${tenths[i + 1] / 10}`);
  return `M${points.join("L")}${close ? "z" : ""}`;
}

function maskShapes(mask, height) {
  let paths;
  if (typeof mask === "string") {
    paths = pathsOfCode(mask, height);
  } else {
    const outlines = mask.map((polygon) => pathOfPoints(polygon, true));
    paths = { areas: outlines, edges: outlines };
  }
  return shape("g", { class: "mask" }, [
    shape("g", { class: "area" }, paths.areas.map((d) => shape("path", { d }))),
    ...paths.edges.map((d) => shape("path", { class: "edge", d })),
  ]);
}

// Limbs over their black outlines, keypoints on top; a keypoint is hollow where it is not sure.
function skeletonShapes(person, thickness) {
  const { limbs, sides } = INDEX.skeleton;
  const isResult = person.confidence !== undefined;
  const sure = isResult ? person.confidence.map((c) => c / 50) : [...person.visibility].map(Number);
  const least = isResult ? 1 : 2;
  const x = (i) => person.keypoints[2 * i] / 10;
  const y = (i) => person.keypoints[2 * i + 1] / 10;
  const lines = limbs.filter(([a, b]) => sure[a] > 0 && sure[b] > 0);
  const drawLimb = ([a, b], kind) =>
    shape("line", { class: `limb ${kind}`, x1: x(a), y1: y(a), x2: x(b), y2: y(b) });
  const dots = sure.flatMap((value, i) => {
    if (!(value > 0)) return [];
    const kind = `joint ${sides[i]}${value < least ? " hollow" : ""}`;
    const dot = shape("circle", { class: kind, cx: x(i), cy: y(i), r: 1.5 * thickness + 0.5 });
    dot.append(shape("title", {}, [INDEX.skeleton.names[i]]));
    return [dot];
  });
  return shape("g", { class: "skeleton" }, [
    ...lines.map((limb) => drawLimb(limb, "outline")),
    ...lines.map(([a, b]) => drawLimb([a, b], sides[a] === sides[b] ? sides[a] : "center")),
    ...dots,
  ]);
}

function areaShapes(person, height) {
  const shapes = person.mask ? [maskShapes(person.mask, height)] : [];
  if (person.box) {
    const [x, y, width, boxHeight] = person.box.map((value) => value / 10);
    shapes.push(shape("rect", { class: "box", x, y, width, height: boxHeight }));
  }
  return shapes;
}

function scribbleShapes(person) {
  return (person.scribbles ?? []).flatMap((scribble, number) => {
    const d = pathOfPoints(scribble, false);
    const which = number === 0 ? "first" : "further";
    return [
      shape("path", { class: `scribble outline ${which}`, d }),
      shape("path", { class: `scribble ${which}`, d }),
    ];
  });
}

// From stored pixels to what a browser shows of an image with this EXIF orientation.
function turnMatrix(turn, width, height) {
  return {
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  }[turn];
}

// The drawing over image number `image`.  people: [what is drawn, "truth" or "result"]; the
// skeletons lie on the scribbles and these on the masks.  `magnify` makes lines thicker.
function overlay(image, people, magnify) {
  const [width, height, turn] = ["width", "height", "turn"].map((key) => INDEX.images[key][image]);
  const thickness = (magnify * Math.max(width, height)) / 240;
  // Pixel i has the coordinate i: its middle is half a pixel further.  Edges run between pixels.
  const middles = { transform: "translate(0.5 0.5)" };
  const layer = (draw, more) =>
    people.map(([person, kind]) => shape("g", { class: kind, ...more }, draw(person)));
  const matrix = turnMatrix(turn, width, height);
  const drawn = shape("g", matrix ? { transform: `matrix(${matrix.join(" ")})` } : {}, [
    ...layer((person) => areaShapes(person, height), {}),
    ...layer(scribbleShapes, middles),
    ...layer((person) => [skeletonShapes(person, thickness)], middles),
  ]);
  const viewBox = turn > 4 ? `0 0 ${height} ${width}` : `0 0 ${width} ${height}`;
  const svg = shape("svg", { viewBox, "aria-hidden": "true" }, [drawn]);
  svg.style.setProperty("--thickness", thickness);
  return svg;
}
