// Heat maps in SVG: who errs alike, strengths by category.

const ruler = document.createElement("canvas").getContext("2d");

/** Return `words`, its middle left out so that it is at most `most` pixels wide, and its width. */
function fitted(words, most, size) {
  ruler.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  const letters = [...words];
  let shown = words;
  // The ends tell names apart: families of models share their beginning.
  for (let kept = letters.length - 1; kept > 3 && ruler.measureText(shown).width > most; kept -= 1) {
    const [head, tail] = [Math.ceil(kept / 2), letters.length - Math.floor(kept / 2)];
    shown = `${letters.slice(0, head).join("")}\u2026${letters.slice(tail).join("")}`;
  }
  return { shown, width: ruler.measureText(shown).width };
}

/**
 * Return a function that draws a heat map into `host`, to be read with pointer and arrow keys. It takes
 * what: {rows, columns: names; label; paint(r, c) -> [class, opacity] or null; words(r, c) -> lines;
 *        inside(r, c) -> text or ""; framed(r, c) -> whether the cell is framed;
 *        gapBefore: a column, or none; least, most, tall: pixels of a cell}
 */
function heatMap(host) {
  let what = null;
  const draw = () => what && host.clientWidth && drawHeatMap(host, what, host.clientWidth);
  onResize(host, draw);
  return (next) => {
    what = next;
    draw();
  };
}

function drawHeatMap(host, what, width) {
  const count = what.columns.length;
  const size = width < 520 ? 10 : 11.5;
  const labelMost = clamped(width * 0.24, 84, 190);
  const rowWords = what.rows.map((name) => fitted(name, labelMost, size));
  const columnWords = what.columns.map((name) => fitted(name, labelMost * 0.9, size));
  const left = Math.ceil(Math.max(...rowWords.map((words) => words.width))) + 10;
  const longest = Math.max(...columnWords.map((words) => words.width));
  const [rise, run] = [Math.sin(Math.PI / 3) * longest, Math.cos(Math.PI / 3) * columnWords.at(-1).width];
  const top = Math.ceil(rise) + 12;
  const gap = what.gapBefore ? 8 : 0;
  // Cells stay large enough to hit; what does not fit then is scrolled.
  const cell = clamped((width - left - run - gap - 4) / count, what.least ?? 11, what.most ?? 34);
  const tall = what.tall ? Math.max(cell, what.tall) : cell;
  const at = (column) => left + column * cell + (what.gapBefore && column >= what.gapBefore ? gap : 0);
  const full = Math.ceil(Math.max(at(count) + run + 4, 40));
  const root = surface(full, top + what.rows.length * tall + 2, what.label);
  const cells = svg("g", { class: "cells" });
  const words = svg("g", { class: "words", "font-size": size });
  const names = { rows: [], columns: [] };
  what.columns.forEach((_, column) => {
    const [x, y] = [at(column) + cell / 2 + 3, top - 7];
    const name = svg("text", { x, y, transform: `rotate(-60 ${x} ${y})` }, columnWords[column].shown);
    names.columns.push(name);
    words.append(name);
  });
  what.rows.forEach((_, row) => {
    const y = top + row * tall;
    const name = svg("text", { x: left - 8, y: y + tall / 2 + size * 0.36, "text-anchor": "end" }, rowWords[row].shown);
    names.rows.push(name);
    words.append(name);
    what.columns.forEach((__, column) => {
      const paint = what.paint(row, column);
      const box = { x: at(column) + 0.5, y: y + 0.5, width: cell - 1, height: tall - 1 };
      cells.append(
        svg(
          "rect",
          paint ? { ...box, class: paint[0], "fill-opacity": paint[1].toFixed(3) } : { ...box, class: "undefined" },
        ),
      );
      if (what.framed?.(row, column)) {
        words.append(svg("rect", { x: box.x + 1, y: box.y + 1, width: cell - 3, height: tall - 3, class: "frame" }));
      }
      const inside = cell >= 22 ? (what.inside?.(row, column) ?? "") : "";
      if (inside) {
        const strong = paint && paint[1] > 0.66 ? "inside strong" : "inside";
        words.append(
          svg(
            "text",
            { x: box.x + box.width / 2, y: y + tall / 2 + 4, class: strong, "text-anchor": "middle" },
            inside,
          ),
        );
      }
    });
  });
  const cursor = svg("rect", { class: "cursor", width: cell + 1, height: tall + 1, visibility: "hidden" });
  root.append(cells, words, cursor);
  root.setAttribute("tabindex", "0");
  host.replaceChildren(root);
  explore(root, { what, names, cursor, cell, tall, top, left, at, gap });
}

/** Let pointer and arrow keys read the cells of a heat map. */
function explore(root, { what, names, cursor, cell, tall, top, left, at, gap }) {
  let here = null;
  const mark = (on) => {
    if (!here) return;
    names.rows[here[0]].classList.toggle("on", on);
    names.columns[here[1]].classList.toggle("on", on);
  };
  const leave = () => {
    mark(false);
    here = null;
    cursor.setAttribute("visibility", "hidden");
    tip.hide();
  };
  const go = (row, column, spoken) => {
    mark(false);
    here = [row, column];
    mark(true);
    cursor.setAttribute("x", at(column) - 0.5);
    cursor.setAttribute("y", top + row * tall - 0.5);
    cursor.setAttribute("visibility", "visible");
    const box = cursor.getBoundingClientRect();
    const lines = what.words(row, column);
    tip.show(box.right, box.top + box.height / 2, lines);
    if (spoken) tip.speak(lines);
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const ratio = root.viewBox.baseVal.width / box.width;
    const row = Math.floor(((event.clientY - box.top) * ratio - top) / tall);
    let x = (event.clientX - box.left) * ratio - left;
    if (what.gapBefore && x > what.gapBefore * cell) x -= gap;
    const column = Math.floor(x / cell);
    if (row < 0 || column < 0 || row >= what.rows.length || column >= what.columns.length) leave();
    else if (!here || here[0] !== row || here[1] !== column) go(row, column, false);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    const [row, column] = here ?? [0, 0];
    go(clamped(row + step[0], 0, what.rows.length - 1), clamped(column + step[1], 0, what.columns.length - 1), true);
  });
}

/** Draw the scale of a heat map: swatches between two numbers. */
function ramp(host, from, to, swatches) {
  host.replaceChildren(
    element("span", {}, from),
    ...swatches.map(([kind, opacity]) => {
      const box = svg(
        "svg",
        { width: 16, height: 12 },
        svg("rect", { width: 16, height: 12, class: kind, "fill-opacity": opacity }),
      );
      return box;
    }),
    element("span", {}, to),
  );
}

// Who errs alike, strengths by category -----------------------------------------------------------------------------

const byAccuracy = () =>
  data.agents.map((_, agent) => agent).sort((a, b) => data.accuracy[b] - data.accuracy[a] || a - b);

function drawErrors() {
  const show = heatMap(byId("errors-map"));
  const labelled = Boolean(data.accuracy);
  const { value, together, same, order } = data.pairs;
  const count = data.agents.length;
  // The diagonal, where every member is like itself, says nothing and must not pale the rest.
  const most = Math.max(0.1, ...value.filter((found, at) => found !== null && at % (count + 1)).map(Math.abs));
  const top = Math.ceil(most * 10 - 1e-9) / 10;
  const draw = () => {
    const by = byId("errors-order").value;
    const shown = by === "similar" ? order : by === "accuracy" ? byAccuracy() : data.agents.map((_, agent) => agent);
    const names = shown.map((agent) => data.agents[agent]);
    const cell = (row, column) => shown[row] * count + shown[column];
    show({
      rows: names,
      columns: names,
      most: count > 12 ? 34 : 52,
      label: labelled ? "Correlation of errors between members" : "Agreement between members",
      paint: (row, column) => {
        const found = value[cell(row, column)];
        if (row === column) return ["self", 0.5];
        return found === null
          ? null
          : [found < 0 ? "negative" : "positive", clamped((0.95 * Math.abs(found)) / top, 0.02, 0.95)];
      },
      inside: (row, column) => {
        const found = value[cell(row, column)];
        return row === column || found === null ? "" : fixed(found, 2).replace("0.", ".");
      },
      words: (row, column) =>
        pairWords(
          names[row],
          names[column],
          row === column,
          value[cell(row, column)],
          together[cell(row, column)],
          same[cell(row, column)],
          labelled,
        ),
    });
  };
  byId("errors-order").addEventListener("change", draw);
  const steps = [0.05, 0.25, 0.5, 0.75, 0.95];
  const below = value.some((found) => found !== null && found < -0.05)
    ? [0.9, 0.5, 0.1].map((step) => ["negative", step])
    : [];
  ramp(byId("errors-ramp"), below.length ? fixed(-top, 1) : "0", fixed(top, 1), [
    ...below,
    ...steps.map((step) => ["positive", step]),
  ]);
  draw();
}

function pairWords(first, second, itself, value, together, same, labelled) {
  const share = (part, whole) => `${grouped(part)} (${percent(part / (whole || 1))} %)`;
  const shown = value === null ? "undefined: one is always right, always wrong or silent" : fixed(value, 2);
  if (!labelled)
    return itself
      ? [first, `answers ${share(together, data.questions)}`]
      : [`${first} \u00d7 ${second}`, `equal answers: ${shown}`, `both answer ${grouped(together)} questions`];
  if (itself) return [first, `wrong on ${share(together, data.questions)}`];
  return [
    `${first} \u00d7 ${second}`,
    `correlation of errors ${shown}`,
    `both wrong on ${share(together, data.questions)}`,
    `with the same wrong answer on ${share(same, together)} of these`,
  ];
}

function drawCategories() {
  const { names, counts, value } = data.strengths;
  const agents = byAccuracy();
  const shown = [...agents, ...data.ensembles.map((_, at) => data.agents.length + at)];
  const width = data.agents.length + data.ensembles.length;
  const columns = shown.map((at) =>
    at < data.agents.length ? data.agents[at] : data.ensembles[at - data.agents.length],
  );
  const of = (row, column) => value[row * width + shown[column]];
  const low = Math.min(...value);
  const high = Math.max(...value);
  const best = names.map((_, row) => Math.max(...agents.map((agent) => value[row * width + agent])));
  const strength = (found) => 0.04 + 0.9 * ((found - low) / (high - low || 1));
  ramp(
    byId("categories-ramp"),
    `${percent(low, 0)} %`,
    `${percent(high, 0)} %`,
    [0.05, 0.25, 0.5, 0.75, 0.94].map((step) => ["positive", step]),
  );
  heatMap(byId("categories-map"))({
    rows: names,
    columns,
    gapBefore: data.ensembles.length ? agents.length : 0,
    tall: 24,
    least: 18,
    most: 44,
    label: "Accuracy by category and member",
    paint: (row, column) => ["positive", strength(of(row, column))],
    inside: (row, column) => percent(of(row, column), 0),
    framed: (row, column) => column < agents.length && of(row, column) === best[row],
    words: (row, column) => [
      `${columns[column]}, ${names[row]}`,
      `${percent(of(row, column))} % of ${grouped(counts[row])} questions`,
      `best member: ${percent(best[row])} %`,
    ],
  });
}
