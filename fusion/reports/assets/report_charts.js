// Charts in SVG: failures that come together, accuracy against cost.

// Failing together --------------------------------------------------------------------------------------------------

function drawFailures() {
  const { observed, chance } = data.failures;
  const host = byId("failures-bars");
  onResize(host, (width) => {
    const frame = { left: 56, top: 34, right: width - 10, bottom: 270 };
    const root = surface(
      width,
      318,
      `Questions by the number of members that fail: ${observed.map((count, k) => `${k}: ${count}`).join(", ")}`,
    );
    const slot = (frame.right - frame.left) / observed.length;
    const middle = (k) => frame.left + (k + 0.5) * slot;
    const most = Math.max(...observed, ...chance);
    const y = scale(0, most, frame.bottom, frame.top);
    const every = Math.ceil(observed.length / Math.max(2, Math.floor((frame.right - frame.left) / 34)));
    const ks = observed.map((_, k) => k);
    root.append(
      axes(
        frame,
        { at: middle, ticks: ks.filter((k) => k % every === 0), words: String, name: "members that fail" },
        { at: y, ticks: niceTicks(0, most, 5), words: grouped, name: "questions" },
      ),
      svg(
        "g",
        { class: "bar" },
        ...ks.map((k) =>
          svg("rect", {
            x: middle(k) - slot * 0.38,
            y: y(observed[k]),
            width: slot * 0.76,
            height: Math.max(0, frame.bottom - y(observed[k])),
          }),
        ),
      ),
      svg("path", {
        class: "chance",
        d: ks.map((k) => `${k ? "L" : "M"}${middle(k).toFixed(1)} ${y(chance[k]).toFixed(1)}`).join(""),
      }),
      svg(
        "g",
        { class: "chance" },
        ...ks.map((k) => svg("circle", { cx: middle(k), cy: y(chance[k]), r: clamped(slot * 0.14, 1.5, 3) })),
      ),
    );
    root.addEventListener("pointermove", (event) => {
      const box = root.getBoundingClientRect();
      const k = Math.floor((((event.clientX - box.left) * width) / box.width - frame.left) / slot);
      if (k < 0 || k >= observed.length) return tip.hide();
      const expected = chance[k] >= 0.05 ? grouped(Math.round(chance[k] * 10) / 10) : "<0.1";
      return tip.show(event.clientX, event.clientY, [
        `exactly ${k} of ${data.agents.length} fail`,
        `${grouped(observed[k])} questions (${percent(observed[k] / data.questions)} %)`,
        `if independent: ${expected}`,
      ]);
    });
    root.addEventListener("pointerleave", () => tip.hide());
    host.replaceChildren(root);
  });
}

// What accuracy costs -----------------------------------------------------------------------------------------------

/** Return the panels: the front of sub-ensembles by size and price, the systems by calls and price. */
function costPanels(cloud) {
  const panels = [];
  if (cloud && data.cloud.pareto.length) {
    const marks = (cost) =>
      data.cloud.pareto.map((at) => ({
        role: "subset",
        cost: cost(at),
        accuracy: cloud.value("accuracy", at),
        other: cloud.has("test_accuracy") ? cloud.value("test_accuracy", at) : null,
        lines: cloud.words(at),
      }));
    panels.push({
      isFront: true,
      title: "Sub-ensembles by size",
      name: "members",
      marks: marks((at) => cloud.sizes[at]),
    });
    if (cloud.has("cost"))
      panels.push({
        isFront: true,
        title: "Sub-ensembles by price",
        name: "USD per 1000 questions",
        marks: marks((at) => 1000 * cloud.value("cost", at)),
      });
  }
  for (const [key, title, name, factor] of [
    ["calls", "Members and systems by calls", "calls per question", 1],
    ["usd", "Members and systems by price", "USD per 1000 questions", 1000],
  ]) {
    const marks = data.systems
      .filter((row) => row[key] !== null)
      .map((row) => ({
        role: row.role,
        cost: factor * row[key],
        accuracy: row.accuracy,
        other: null,
        lines: [
          row.label,
          `${percent(row.accuracy)} % (${percent(row.low)}\u2013${percent(row.high)})`,
          `${(factor * row[key]).toPrecision(3)} ${name}`,
        ],
      }));
    if (marks.length > 1) panels.push({ title, name, marks });
  }
  return panels;
}

function drawPareto(cloud) {
  const host = byId("pareto-panels");
  for (const panel of costPanels(cloud)) {
    const box = element("div", { class: "panel" });
    host.append(element("figure", {}, element("h3", {}, panel.title), box));
    onResize(box, (width) => box.replaceChildren(drawPanel(panel, width)));
  }
}

function drawPanel(panel, width) {
  const { marks } = panel;
  const frame = { left: 46, top: 32, right: width - 16, bottom: 262 };
  const root = surface(width, 308, `${panel.title}: accuracy against ${panel.name}`);
  const costs = marks.map((mark) => mark.cost);
  const [least, most] = [Math.min(...costs), Math.max(...costs)];
  const log = least > 0 && most / least > 20;
  const [low, high] = log ? [least / 1.3, most * 1.3] : aired(least, most);
  const x = scale(low, high, frame.left, frame.right, log);
  const levels = marks.flatMap((mark) => (mark.other === null ? [mark.accuracy] : [mark.accuracy, mark.other]));
  const [bottom, top] = aired(Math.min(...levels), Math.max(...levels), 0.08);
  const y = scale(bottom, top, frame.bottom, frame.top);
  const yTicks = niceTicks(bottom, top, 6);
  const xTicks = log
    ? decades(low, high)
    : niceTicks(low, high, Math.floor(width / 70)).filter((tick) => panel.name !== "members" || Number.isInteger(tick));
  const digits = tickDigits(yTicks.map((tick) => 100 * tick));
  root.append(
    axes(
      frame,
      {
        at: x,
        ticks: xTicks,
        words: (tick) => (log ? String(Number(tick.toPrecision(1))) : tick.toFixed(tickDigits(xTicks))),
        name: panel.name,
      },
      { at: y, ticks: yTicks, words: (tick) => percent(tick, digits), name: "accuracy %" },
    ),
  );
  root.append(svg("path", { class: "front", d: stairs(marks, x, y, frame.right) }));
  // The reader looks for ensembles, so members lie below them.
  const onFront = new Set(leading(marks));
  for (const mark of [...marks].sort((a, b) => (b.role === "member") - (a.role === "member"))) {
    const minor = mark.role === "subset" && panel.isFront && !onFront.has(mark) ? " minor" : "";
    const place = svg("g", {
      class: `r-${mark.role}${minor}`,
      transform: `translate(${x(mark.cost).toFixed(1)} ${y(mark.accuracy).toFixed(1)})`,
      tabindex: "0",
      role: "img",
      "aria-label": mark.lines.join(", "),
    });
    if (mark.other !== null) {
      const drop = y(mark.other) - y(mark.accuracy);
      place.append(
        svg("line", { class: "drop", x1: 0, x2: 0, y1: 0, y2: drop }),
        svg("rect", { class: "hollow", x: -4, y: drop - 4, width: 8, height: 8 }),
      );
    }
    place.append(svg("use", { href: `#m-${mark.role}` }), svg("circle", { class: "target", r: 12 }));
    const show = () => {
      const at = place.lastChild.getBoundingClientRect();
      tip.show(at.right - 10, at.top + at.height / 2, mark.lines);
    };
    place.addEventListener("pointerenter", show);
    place.addEventListener("focus", show);
    place.addEventListener("pointerleave", () => tip.hide());
    place.addEventListener("blur", () => tip.hide());
    root.append(place);
  }
  return root;
}

/** Return 1, 2 and 5 times powers of ten in [low, high]; powers alone when those are many. */
function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found.length > 7 ? found.filter((tick) => Number.isInteger(Math.round(Math.log10(tick) * 1e6) / 1e6)) : found;
}

/** Return the marks that no other one beats at the same cost, cheapest first; upper bounds do not count. */
function leading(marks) {
  let best = -Infinity;
  const inOrder = marks
    .filter((one) => one.role !== "upper_bound")
    .sort((a, b) => a.cost - b.cost || b.accuracy - a.accuracy);
  return inOrder.filter((mark) => mark.accuracy > best && ((best = mark.accuracy), true));
}

/** Return the steps along the leading marks. */
function stairs(marks, x, y, right) {
  const steps = leading(marks).map((mark, place) =>
    place
      ? `H${x(mark.cost).toFixed(1)}V${y(mark.accuracy).toFixed(1)}`
      : `M${x(mark.cost).toFixed(1)} ${y(mark.accuracy).toFixed(1)}`,
  );
  return steps.length ? `${steps.join("")}H${right}` : "";
}
