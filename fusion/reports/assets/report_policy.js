// Policy cards: whom a policy asks, as a heat map, and what it is worth stopped earlier.

const WIDE_RANGE = 8; // largest over smallest number of calls from which the axis is logarithmic

function drawPolicies() {
  data.policies.forEach((found, at) => {
    drawPolicyMap(found, byId(`policy-map-${at}`), byId(`policy-ramp-${at}`));
    const host = byId(`policy-curve-${at}`);
    if (host) onResize(host, (width) => host.replaceChildren(policyCurve(found, width)));
  });
}

// Whom it asks ------------------------------------------------------------------------------------------------------

function drawPolicyMap({ label, agents, rows, counts, asked, accuracy, calls }, host, key) {
  const count = agents.length;
  const share = (row, column) => asked[row * count + column];
  const strength = (part) => (part ? clamped(0.95 * part, 0.04, 0.95) : 0);
  ramp(key, "0", "100 %", [0.05, 0.25, 0.5, 0.75, 0.95].map((step) => ["positive", step]));
  heatMap(host)({
    rows,
    columns: [...agents, "calls", "right %"],
    gapBefore: count,
    tall: 24,
    least: 28, // room for a number: what does not fit is scrolled
    most: 44,
    label: `${label}: share of questions on which each member is asked, by category`,
    paint: (row, column) => (column < count ? ["positive", strength(share(row, column))] : ["self", 0.5]),
    inside: (row, column) => {
      if (column === count) return calls[row] < 9.95 ? calls[row].toFixed(1) : calls[row].toFixed(0);
      if (column > count) return percent(accuracy[row], 0);
      const part = share(row, column);
      return part ? (part < 0.005 ? "<1" : percent(part, 0)) : "";
    },
    words: (row, column) => {
      const questions = `${grouped(counts[row])} questions`;
      if (column === count) return [rows[row], `${calls[row].toFixed(2)} calls a question`, questions];
      if (column > count) return [rows[row], `${percent(accuracy[row])} % right`, questions];
      return [`${agents[column]}, ${rows[row]}`, `asked on ${percent(share(row, column))} %`, `of ${questions}`];
    },
  });
}

// Stopped earlier ---------------------------------------------------------------------------------------------------

function policyCurve({ label, curve, span }, width) {
  const frame = { left: 46, top: 32, right: width - 16, bottom: 332 };
  const [least, most] = [0, 1].map((place) => aired(...span, 0.08)[place]);
  // Weak members would flatten everything else.
  const beside = data.systems.filter(
    (row) => row.calls !== null && row.role !== "upper_bound" && row.label !== label && row.accuracy >= span[0],
  );
  const costs = [...curve.map(([calls]) => calls), ...beside.map((row) => row.calls)];
  const [cheap, dear] = [Math.min(...costs), Math.max(...costs)];
  const log = cheap > 0 && dear / cheap > WIDE_RANGE;
  const [low, high] = log ? [cheap / 1.15, dear * 1.15] : aired(cheap, dear);
  const x = scale(low, high, frame.left, frame.right, log);
  const y = scale(least, most, frame.bottom, frame.top);
  const across = log ? decades(low, high) : niceTicks(low, high, Math.floor(width / 70));
  const up = niceTicks(least, most, 6);
  const digits = tickDigits(up.map((tick) => 100 * tick));
  const root = surface(
    width,
    378,
    `${label}: accuracy against calls a question, stopped earlier. ${curve
      .map(([calls, right], at) => `at most ${at + 1}: ${calls.toFixed(2)} calls, ${percent(right)} %`)
      .join("; ")}`,
  );
  const path = (places) =>
    places.map(([left, down], at) => `${at ? "L" : "M"}${left.toFixed(1)} ${down.toFixed(1)}`).join("");
  const band = [
    ...curve.map(([calls, , , top]) => [x(calls), y(top)]),
    ...[...curve].reverse().map(([calls, , bottom]) => [x(calls), y(bottom)]),
  ];
  const [calls, right, bottom, top] = curve.at(-1);
  root.append(
    axes(
      frame,
      {
        at: x,
        ticks: across,
        words: (tick) => (log ? String(Number(tick.toPrecision(1))) : tick.toFixed(tickDigits(across))),
        name: "calls per question",
      },
      { at: y, ticks: up, words: (tick) => percent(tick, digits), name: "accuracy %" },
    ),
    svg("path", { class: "band", d: `${path(band)}Z` }),
    ...beside.map((row) => policyMark(row.role, x(row.calls), y(row.accuracy))),
    svg("path", { class: "curve c0", d: path(curve.map(([cost, share]) => [x(cost), y(share)])) }),
    svg("g", { class: "dots c0" }, ...curve.map(([cost, share]) => svg("circle", { cx: x(cost), cy: y(share), r: 2.4 }))),
    svg("g", { class: "r-system" }, svg("line", { class: "whisker", x1: x(calls), x2: x(calls), y1: y(bottom), y2: y(top) })),
    policyMark("system", x(calls), y(right)),
  );
  readPoints(root, [...curvePoints(curve, label, x, y), ...besidePoints(beside, x, y)]);
  return root;
}

const policyMark = (role, x, y) => svg("g", { class: `r-${role}` }, svg("use", { href: `#m-${role}`, x, y }));

const curvePoints = (curve, label, x, y) =>
  curve.map(([calls, right, low, high], at) => ({
    x: x(calls),
    y: y(right),
    group: 0,
    lines: [
      at + 1 < curve.length ? `stopped after ${at + 1} ${at ? "calls" : "call"} at most` : label,
      `${percent(right)} % (${percent(low)}\u2013${percent(high)})`,
      `${calls.toFixed(2)} calls a question`,
    ],
  }));

const besidePoints = (beside, x, y) =>
  [...beside]
    .sort((a, b) => a.calls - b.calls || b.accuracy - a.accuracy)
    .map((row) => ({
      x: x(row.calls),
      y: y(row.accuracy),
      group: 1,
      lines: [
        row.label,
        `${percent(row.accuracy)} % (${percent(row.low)}\u2013${percent(row.high)})`,
        `${Number(row.calls.toPrecision(3))} calls a question`,
      ],
    }));
