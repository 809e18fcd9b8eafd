// Sub-ensembles as a cloud of dots on a canvas: tens of thousands of them, found under the pointer through a grid.

// Dark to light, told apart by lightness alone: works for every kind of colour vision, and in grey.
const SIZES = ["#3b0f5c", "#453781", "#33638d", "#238a8d", "#29af7f", "#74d055", "#dce319"];
const CELL = 12; // pixels of the search grid
const REACH = 26; // how far from a dot the pointer may be

// How quantities are shown: times a factor, with a unit behind the number and the name of the axis.
const QUANTITIES = {
  focal: { name: "focal diversity", unit: "", factor: 1, digits: 3 },
  accuracy: { name: "accuracy", unit: " %", factor: 100, digits: 2 },
  test_accuracy: { name: "accuracy on other questions", unit: " %", factor: 100, digits: 2 },
  objective: { name: "objective of the search", unit: "", factor: 1, digits: 4 },
  cost: { name: "USD per 1000 questions", unit: "", factor: 1000, digits: 4 },
  size: { name: "members", unit: "", factor: 1, digits: 0 },
};
const titled = (name) => QUANTITIES[name].name + QUANTITIES[name].unit;

/** Return the sub-ensembles: sizes, value(name, at), members(at), words(at), has(name). */
async function loadCloud() {
  const { size, member_bytes: wide, ranges } = data.cloud;
  const raw = await bytes("cloud-members");
  const table = wide === 2 ? new Uint16Array(raw) : new Uint8Array(raw);
  const none = wide === 2 ? 65535 : 255;
  const columns = { size: new Float64Array(size) };
  for (let at = 0; at < table.length; at += 1) if (table[at] !== none) columns.size[at % size] += 1;
  for (const [name, [low, high]] of Object.entries(ranges)) {
    const planes = new Uint8Array(await bytes(`cloud-${name}`));
    columns[name] = Float64Array.from(
      { length: size },
      (_, at) => low + ((planes[at] * 256 + planes[size + at]) / 65535) * (high - low),
    );
  }
  const members = (at) => {
    const found = [];
    for (let place = at; place < table.length && table[place] !== none; place += size) found.push(table[place]);
    return found;
  };
  const shown = (name, at) => {
    const { name: words, unit, factor, digits } = QUANTITIES[name];
    return `${words} ${fixed(factor * columns[name][at], digits)}${unit}`;
  };
  return {
    count: size,
    sizes: columns.size,
    columns,
    members,
    has: (name) => name in columns,
    value: (name, at) => columns[name][at],
    words: (at) => [
      members(at)
        .map((agent) => data.agents[agent])
        .join(", "),
      ...Object.keys(ranges).map((name) => shown(name, at)),
      `${columns.size[at]} ${columns.size[at] === 1 ? "member" : "members"}`,
    ],
  };
}

/** Return a number in [-0.5, 0.5) that depends on `at` alone: spreads dots of one size. */
const jitter = (at) => ((at * 2654435761) % 4294967296) / 4294967296 - 0.5;

/** A grid over the plane, for the nearest of many points. */
class Grid {
  constructor(xs, ys, shown, width, height) {
    Object.assign(this, { xs, ys, columns: Math.ceil(width / CELL) + 1, rows: Math.ceil(height / CELL) + 1 });
    const first = new Uint32Array(this.columns * this.rows + 1);
    for (const at of shown) first[this.cell(at) + 1] += 1;
    for (let cell = 1; cell < first.length; cell += 1) first[cell] += first[cell - 1];
    const next = first.slice();
    this.points = new Uint32Array(shown.length);
    for (const at of shown) {
      this.points[next[this.cell(at)]] = at;
      next[this.cell(at)] += 1;
    }
    this.start = first;
  }

  cell(at) {
    return Math.floor(this.ys[at] / CELL) * this.columns + Math.floor(this.xs[at] / CELL);
  }

  /** Return the point nearest to (x, y), or -1 when none is within reach. */
  nearest(x, y) {
    let found = -1;
    let least = REACH * REACH;
    const [column, row] = [Math.floor(x / CELL), Math.floor(y / CELL)];
    for (let ring = 0; ring <= Math.ceil(REACH / CELL); ring += 1) {
      // Points of farther rings are at least this far away.
      if (found >= 0 && ((ring - 1) * CELL) ** 2 > least) break;
      for (let r = Math.max(0, row - ring); r <= Math.min(this.rows - 1, row + ring); r += 1) {
        const step = Math.abs(r - row) === ring ? 1 : 2 * ring || 1;
        for (let c = column - ring; c <= column + ring; c += step) {
          if (c < 0 || c >= this.columns) continue;
          for (let place = this.start[r * this.columns + c]; place < this.start[r * this.columns + c + 1]; place += 1) {
            const at = this.points[place];
            const distance = (this.xs[at] - x) ** 2 + (this.ys[at] - y) ** 2;
            if (distance < least) [found, least] = [at, distance];
          }
        }
      }
    }
    return found;
  }
}

class CloudPlot {
  constructor(cloud) {
    this.cloud = cloud;
    this.host = byId("cloud");
    this.base = element("canvas", { "aria-hidden": "true" });
    this.over = element("canvas", { "aria-hidden": "true" });
    this.frame = null;
    this.hovered = -1;
    this.picked = -1;
    this.off = new Set();
    const counts = new Map();
    for (const size of cloud.sizes) counts.set(size, (counts.get(size) ?? 0) + 1);
    this.counts = new Map([...counts].sort(([a], [b]) => a - b));
    // Rare sizes are drawn last, on top.
    const rank = new Map([...this.counts].sort(([, a], [, b]) => b - a).map(([size], place) => [size, place]));
    this.order = Uint32Array.from({ length: cloud.count }, (_, at) => at).sort(
      (a, b) => rank.get(cloud.sizes[a]) - rank.get(cloud.sizes[b]),
    );
    this.controls();
    onResize(this.host, () => this.draw());
    for (const query of ["print", "(prefers-color-scheme: dark)"])
      matchMedia(query).addEventListener("change", () => this.draw());
    addEventListener("beforeprint", () => this.draw());
  }

  controls() {
    const names = Object.keys(QUANTITIES).filter((name) => this.cloud.has(name));
    this.x = byId("cloud-x");
    this.y = byId("cloud-y");
    for (const [select, chosen] of [
      [this.x, "focal"],
      [this.y, "accuracy"],
    ]) {
      select.append(...names.map((name) => element("option", { value: name }, titled(name))));
      select.value = chosen;
      select.addEventListener("change", () => this.draw());
    }
    this.chips = [...this.counts].map(([size, count]) => {
      const chip = element(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": "true",
          "aria-label": `${size} members, ${grouped(count)} sub-ensembles`,
        },
        element("i"),
        String(size),
      );
      chip.addEventListener("click", () => {
        if (!this.off.delete(size)) this.off.add(size);
        chip.setAttribute("aria-pressed", String(!this.off.has(size)));
        this.draw();
      });
      return chip;
    });
    byId("cloud-sizes").append(...this.chips);
    this.host.addEventListener("pointermove", (event) => this.hover(event));
    this.host.addEventListener("pointerleave", () => this.point(-1));
    this.host.addEventListener("click", () => this.pick(this.hovered));
    this.host.addEventListener("keydown", (event) => this.key(event));
    this.host.addEventListener("blur", () => this.point(-1));
  }

  colourOf(size) {
    const sizes = [...this.counts.keys()];
    const share = sizes.length > 1 ? sizes.indexOf(size) / (sizes.length - 1) : 0;
    // The few small ones stand out from the ground, the many large ones recede towards it.
    const shades = isDark() ? [...SIZES].reverse().slice(0, 6) : SIZES.slice(0, 6);
    return shades[Math.round(share * (shades.length - 1))];
  }

  axis(select, from, to) {
    const { factor } = QUANTITIES[select.value];
    const values = this.cloud.columns[select.value];
    let [least, most] = [Infinity, -Infinity];
    for (const value of values) {
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
    const size = select.value === "size";
    const [low, high] = size ? [least - 0.6, most + 0.6] : aired(least, most);
    const at = scale(low, high, from, to);
    const ticks = niceTicks(factor * low, factor * high, Math.max(4, Math.floor(Math.abs(to - from) / 80))).filter(
      (tick) => !size || Number.isInteger(tick),
    );
    const digits = tickDigits(ticks);
    return {
      at,
      ticks: ticks,
      words: (tick) => fixed(tick, digits),
      name: titled(select.value),
      values,
      spread: size ? 0.8 * Math.abs(at(1) - at(0)) : 0,
      factor,
    };
  }

  draw() {
    const width = this.host.clientWidth;
    const height = clamped(width * 0.6, 300, 560);
    this.frame = { left: 52, top: 32, right: width - 12, bottom: height - 46, width, height };
    const across = this.axis(this.x, this.frame.left, this.frame.right);
    const up = this.axis(this.y, this.frame.bottom, this.frame.top);
    const { count } = this.cloud;
    this.xs = Float32Array.from(
      { length: count },
      (_, at) => across.at(across.values[at]) + jitter(at) * across.spread,
    );
    this.ys = Float32Array.from({ length: count }, (_, at) => up.at(up.values[at]) + jitter(at) * up.spread);
    const shown = this.order.filter((at) => !this.off.has(this.cloud.sizes[at]));
    this.grid = new Grid(this.xs, this.ys, shown, width, height);
    const byFactor = (axis) => ({ ...axis, at: (tick) => axis.at(tick / axis.factor) });
    const ground = surface(width, height, this.host.getAttribute("aria-label"));
    ground.append(axes(this.frame, byFactor(across), byFactor(up)));
    this.host.replaceChildren(ground, this.base, this.over);
    this.paint(shown);
    this.point(-1);
    this.chips.forEach((chip, place) => {
      chip.firstChild.style.background = this.colourOf([...this.counts.keys()][place]);
    });
    this.caption(across, up, shown);
  }

  /** Return the drawing context of a canvas, cleared, in pixels of the page. */
  context(canvas) {
    const ratio = Math.max(2, devicePixelRatio || 1);
    canvas.width = Math.round(this.frame.width * ratio);
    canvas.height = Math.round(this.frame.height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    return pen;
  }

  paint(shown) {
    const pen = this.context(this.base);
    const many = shown.length;
    const radius = many > 20000 ? 1.1 : many > 4000 ? 1.6 : many > 500 ? 2.4 : 4;
    pen.globalAlpha = many > 20000 ? 0.55 : 0.75;
    let last = -1;
    for (const at of shown) {
      if (this.cloud.sizes[at] !== last) pen.fillStyle = this.colourOf((last = this.cloud.sizes[at]));
      if (radius < 2) pen.fillRect(this.xs[at] - radius, this.ys[at] - radius, 2 * radius, 2 * radius);
      else {
        pen.beginPath();
        pen.arc(this.xs[at], this.ys[at], radius, 0, 7);
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    const visible = (at) => !this.off.has(this.cloud.sizes[at]);
    for (const at of data.cloud.pareto.filter(visible)) this.ring(pen, at, 3.6, "ink", 1.3);
    if (visible(data.cloud.best)) {
      this.ring(pen, data.cloud.best, 8, "wrong", 2.4);
      this.cross(pen, data.cloud.best);
    }
  }

  ring(pen, at, radius, name, width) {
    for (const [style, extra] of [
      [colour("page"), 2],
      [colour(name), 0],
    ]) {
      pen.strokeStyle = style;
      pen.lineWidth = width + extra;
      pen.beginPath();
      pen.arc(this.xs[at], this.ys[at], radius, 0, 7);
      pen.stroke();
    }
  }

  cross(pen, at) {
    for (const [dx, dy] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ]) {
      pen.beginPath();
      pen.moveTo(this.xs[at] + 8 * dx, this.ys[at] + 8 * dy);
      pen.lineTo(this.xs[at] + 14 * dx, this.ys[at] + 14 * dy);
      pen.stroke();
    }
  }

  /** Say over how many dots the two quantities go together, and how closely. */
  caption(across, up, shown) {
    let [n, sx, sy, sxx, syy, sxy] = [0, 0, 0, 0, 0, 0];
    const [x0, y0] = [across.values[0], up.values[0]]; // against cancellation
    for (const at of shown) {
      const [x, y] = [across.values[at] - x0, up.values[at] - y0];
      n += 1;
      sx += x;
      sy += y;
      sxx += x * x;
      syy += y * y;
      sxy += x * y;
    }
    const spread = Math.sqrt((n * sxx - sx * sx) * (n * syy - sy * sy));
    const r = spread > 0 && n > 2 ? `; correlation ${fixed((n * sxy - sx * sy) / spread, 2)}` : "";
    byId("cloud-caption").textContent = `${grouped(n)} sub-ensembles shown${r}.`;
  }

  hover(event) {
    const box = this.over.getBoundingClientRect();
    this.point(this.grid.nearest(event.clientX - box.left, event.clientY - box.top));
  }

  /** Point at a sub-ensemble, or with -1 at none. */
  point(at, spoken = false) {
    this.hovered = at;
    const pen = this.context(this.over);
    if (this.picked >= 0) this.ring(pen, this.picked, 6.5, "accent", 2.2);
    if (at < 0) return tip.hide();
    this.ring(pen, at, 5, "accent", 2);
    const box = this.over.getBoundingClientRect();
    const lines = this.cloud.words(at);
    tip.show(box.left + this.xs[at], box.top + this.ys[at], lines);
    return spoken && tip.speak(lines);
  }

  /** Keep a sub-ensemble in words below the plot; the same one again, or -1, lets it go. */
  pick(at) {
    this.picked = at === this.picked ? -1 : at;
    const panel = byId("cloud-picked");
    panel.hidden = this.picked < 0;
    if (this.picked >= 0) {
      const [members, ...rest] = this.cloud.words(this.picked);
      panel.replaceChildren(element("strong", {}, members), element("span", {}, rest.join(" \u00b7 ")));
    }
    this.point(this.hovered);
  }

  key(event) {
    const notable = [...new Set([data.cloud.best, ...data.cloud.pareto])]
      .filter((at) => !this.off.has(this.cloud.sizes[at]))
      .sort((a, b) => this.xs[a] - this.xs[b]);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && notable.length) {
      event.preventDefault();
      const from = notable.indexOf(this.hovered);
      const to = from < 0 ? notable.indexOf(data.cloud.best) : clamped(from + step, 0, notable.length - 1);
      this.point(notable[Math.max(0, to)], true);
    } else if (event.key === "Enter") this.pick(this.hovered);
    else if (event.key === "Escape") {
      this.picked = -1;
      byId("cloud-picked").hidden = true;
      this.point(-1);
    }
  }
}
