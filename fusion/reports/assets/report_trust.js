// Confidence and weights: reliability diagrams, risk against coverage, heat maps of weights.

const NEAR = 30; // pixels: how far from a point the pointer may be
const DASHES = ["", "7 3", "2 3", "9 3 2 3"]; // beside the colour, so that curves differ without it
const CURVE_COLOURS = 8;

/** Return a spec as nodes, with places where it may be broken. */
const breakable = (label) => label.split(/(?<=[+,(])/).flatMap((part) => [part, element("wbr")]);

/**
 * Let pointer and arrow keys read the points of a chart. Points are {x, y, lines, group}, in order; groups are the
 * curves, `light(group)` is told which one is read, or -1.
 */
function readPoints(root, points, light = () => {}) {
  const cursor = svg("circle", { class: "ring", r: 7, visibility: "hidden" });
  root.append(cursor);
  root.setAttribute("tabindex", "0");
  let here = -1;
  const leave = () => {
    here = -1;
    light(-1);
    cursor.setAttribute("visibility", "hidden");
    tip.hide();
  };
  const go = (at, spoken) => {
    here = at;
    const { x, y, lines, group } = points[at];
    light(group);
    cursor.setAttribute("cx", x);
    cursor.setAttribute("cy", y);
    cursor.setAttribute("visibility", "visible");
    const box = cursor.getBoundingClientRect();
    tip.show(box.right, box.top + box.height / 2, lines);
    if (spoken) tip.speak(lines);
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const ratio = root.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    const far = (at) => Math.hypot(points[at].x - x, points[at].y - y);
    const nearest = points.reduce((best, _, at) => (best < 0 || far(at) < far(best) ? at : best), -1);
    if (nearest < 0 || far(nearest) > NEAR * ratio) leave();
    else if (nearest !== here) go(nearest, false);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const over = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.key === "Escape") leave();
    if (!along && !over) return;
    event.preventDefault();
    if (here < 0) return void go(0, true);
    const { x, group } = points[here];
    const groups = [...new Set(points.map((point) => point.group))];
    const wanted = groups[clamped(groups.indexOf(group) + (over ?? 0), 0, groups.length - 1)];
    const others = points.map((_, at) => at).filter((at) => points[at].group === wanted);
    if (along) go(others[clamped(others.indexOf(here) + along, 0, others.length - 1)], true);
    else go(others.reduce((best, at) => (Math.abs(points[at].x - x) < Math.abs(points[best].x - x) ? at : best)), true);
  });
}

// Reliability -------------------------------------------------------------------------------------------------------

function drawConfidence() {
  const host = byId("confidence-panels");
  for (const row of data.confidences.filter((found) => found.bins.length)) {
    const box = element("div", { class: "panel" });
    host.append(
      element("figure", {}, element("h3", {}, ...breakable(row.label)), box, element("figcaption", {}, confidenceWords(row))),
    );
    onResize(box, (width) => box.replaceChildren(drawReliability(row, width)));
  }
  drawRiskCoverage();
}

const confidenceWords = (row) =>
  `off by ${percent(row.error)} points on average (calibration error)` +
  (row.bins.length > 1 ? "" : "; it says the same of every answer");

function drawReliability(row, width) {
  // A square, so that the diagonal is one; what is below it counts the answers of each dot.
  const side = Math.min(width - 62, 300);
  const frame = { left: 46, top: 32, right: 46 + side, bottom: 32 + side };
  const foot = { top: frame.bottom - 42, bottom: frame.bottom };
  const root = surface(
    width,
    frame.bottom + 48,
    `${row.label}: share of right answers by confidence. ${row.bins
      .map(([n, said, right]) => `says ${percent(said)} %, ${percent(right)} % of ${n} are right`)
      .join("; ")}`,
  );
  const x = scale(0, 1, frame.left, frame.right);
  const y = scale(0, 1, frame.bottom, frame.top);
  const most = Math.max(...row.bins.map(([n]) => n));
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const words = (tick) => percent(tick, 0);
  root.append(
    axes(frame, { at: x, ticks, words, name: "confidence %" }, { at: y, ticks, words, name: "right %" }),
    svg("line", { class: "reference", x1: x(0), x2: x(1), y1: y(0), y2: y(1) }),
    svg(
      "g",
      { class: "foot" },
      ...row.bins.map(([n, said]) => {
        const height = ((foot.bottom - foot.top) * n) / most;
        return svg("rect", { x: x(said) - 1.5, width: 3, y: foot.bottom - height, height });
      }),
    ),
    svg(
      "g",
      { class: "r-worth" },
      ...row.bins.flatMap(([, said, right, low, high]) => [
        svg("line", { class: "whisker", x1: x(said), x2: x(said), y1: y(low), y2: y(high) }),
        svg("use", { href: "#m-worth", x: x(said), y: y(right) }),
      ]),
    ),
  );
  readPoints(
    root,
    row.bins.map(([n, said, right, low, high]) => ({
      x: x(said),
      y: y(right),
      group: 0,
      lines: [
        `says ${percent(said)} %`,
        `${percent(right)} % right (${percent(low)}\u2013${percent(high)})`,
        `${grouped(n)} answers`,
      ],
    })),
  );
  return root;
}

// Risk against coverage ---------------------------------------------------------------------------------------------

const curveLook = (at) => ({
  class: `curve c${at % CURVE_COLOURS}`,
  "stroke-dasharray": DASHES[(at + Math.floor(at / CURVE_COLOURS)) % DASHES.length] || null,
});

function drawRiskCoverage() {
  const rows = data.confidences;
  byId("risk-legend").replaceChildren(
    ...rows.map((row, at) =>
      element(
        "li",
        {},
        svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, svg("path", { ...curveLook(at), d: "M0 5H28" })),
        element("span", {}, ...breakable(row.label)),
      ),
    ),
  );
  const host = byId("risk-chart");
  onResize(host, (width) => host.replaceChildren(riskCoverage(rows, width)));
}

function riskCoverage(rows, width) {
  const frame = { left: 46, top: 32, right: width - 16, bottom: 332 };
  const root = surface(
    width,
    378,
    `Share of wrong answers by share of questions answered. ${rows
      .map((row) => `${row.label}: ${percent(row.risk.at(-1))} % wrong of all, area ${percent(row.aurc)} %`)
      .join("; ")}`,
  );
  // A single answer that is wrong would be a risk of 100 %: the first questions must not flatten everything else.
  const usual = rows.flatMap((row) => row.risk.filter((_, at) => row.coverage[at] >= 0.05));
  const allowed = rows.find((row) => row.allowed !== null)?.allowed ?? null;
  const top = Math.min(1, Math.max(0.02, ...usual, allowed ?? 0) * 1.06);
  const x = scale(0, 1, frame.left, frame.right);
  const y = scale(0, top, frame.bottom, frame.top);
  const up = niceTicks(0, top, 6);
  const digits = tickDigits(up.map((tick) => 100 * tick));
  const points = [];
  const curves = rows.map((row, at) => {
    const places = row.coverage.map((share, place) => [x(share), y(Math.min(row.risk[place], top))]);
    points.push(
      ...places.map(([left, down], place) => ({
        x: left,
        y: down,
        group: at,
        lines: [
          row.label,
          `answers ${percent(row.coverage[place])} % of the questions`,
          `${percent(row.risk[place])} % of these wrong`,
        ],
      })),
    );
    const few = places.length <= 20;
    const group = svg(
      "g",
      { class: row.role === "system" ? "chosen" : "other" },
      svg("path", {
        ...curveLook(at),
        d: places.map(([left, down], place) => `${place ? "L" : "M"}${left.toFixed(1)} ${down.toFixed(1)}`).join(""),
      }),
      svg(
        "g",
        { class: `dots c${at % CURVE_COLOURS}` },
        ...(few ? places.map(([left, down]) => svg("circle", { cx: left, cy: down, r: 2.4 })) : []),
      ),
    );
    if (row.answered) {
      const [share, wrong] = row.answered;
      const [left, down] = [x(share), y(Math.min(wrong, top))];
      group.append(svg("circle", { class: `stop c${at % CURVE_COLOURS}`, cx: left, cy: down, r: 5 }));
      points.push({
        x: left,
        y: down,
        group: at,
        lines: [
          row.label,
          `at most ${percent(row.allowed)} % wrong asked for`,
          `answers ${percent(share)} % of the questions`,
          `${percent(wrong)} % of these wrong`,
        ],
      });
    }
    return group;
  });
  root.append(
    axes(
      frame,
      { at: x, ticks: niceTicks(0, 1, width < 520 ? 5 : 10), words: (tick) => percent(tick, 0), name: "questions answered %" },
      { at: y, ticks: up, words: (tick) => percent(tick, digits), name: "wrong %" },
    ),
  );
  if (allowed !== null) {
    root.append(svg("line", { class: "reference", x1: frame.left, x2: frame.right, y1: y(allowed), y2: y(allowed) }));
  }
  root.append(...curves);
  readPoints(
    root,
    // Reading along a curve goes from the surest questions on, a ring at its place.
    points.sort((a, b) => a.group - b.group || a.x - b.x),
    (group) => curves.forEach((curve, at) => curve.classList.toggle("dim", group >= 0 && at !== group)),
  );
  return root;
}

// Weights -----------------------------------------------------------------------------------------------------------

function drawWeights() {
  for (const found of data.weights) {
    const map = element("div", { class: "heat" });
    const key = element("span", { class: "ramp", "aria-hidden": "true" });
    byId("weights-maps").append(
      element(
        "figure",
        {},
        element("h3", {}, ...breakable(found.label), found.unit_words ? `, ${found.unit_words}` : ""),
        element("div", { class: "controls" }, key),
        map,
      ),
    );
    drawWeightMap(found, map, key);
  }
}

function drawWeightMap({ label, agents, rows, counts, unit, digits, value }, host, key) {
  const known = value.filter((weight) => weight !== null);
  const most = Math.max(...known.map(Math.abs)) || 1;
  const least = Math.min(...known);
  const of = (row, column) => value[row * agents.length + column];
  const shown = (weight) => fixed(weight / unit, digits);
  // By the square root: a small negative weight shall still be seen beside large ones.
  const strength = (weight) => clamped(0.95 * Math.sqrt(Math.abs(weight) / most), 0.02, 0.95);
  const steps = [0.05, 0.25, 0.5, 0.75, 0.95];
  ramp(key, least < 0 ? shown(-most) : "0", shown(most), [
    ...(least < 0 ? [0.9, 0.5, 0.1].map((step) => ["negative", step]) : []),
    ...steps.map((step) => ["positive", step]),
  ]);
  heatMap(host)({
    rows,
    columns: agents,
    tall: 24,
    least: 32, // room for a number with its sign: what does not fit is scrolled
    most: 52,
    label: `${label}: weight of a vote by category and member`,
    paint: (row, column) => {
      const weight = of(row, column);
      return weight === null ? null : [weight < 0 ? "negative" : "positive", strength(weight)];
    },
    // Without the zero before the point, as there is little room.
    inside: (row, column) => (of(row, column) === null ? "" : shown(of(row, column)).replace(/^(\D?)0\./, "$1.")),
    words: (row, column) => {
      const weight = of(row, column);
      return [
        `${agents[column]}, ${rows[row]}`,
        weight === null ? "never listened to" : `weight ${signed(String(weight))}`,
        `${grouped(counts[row])} questions`,
      ];
    },
  });
}
