// What every part of the page uses: the data, elements, numbers in words, the tooltip, colours, axes.
// Text only ever enters the page as text (textContent, createTextNode), never as markup.

const data = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);
const has = (section) => data.sections.includes(section);
const MINUS = "\u2212";

/** Return a new HTML element. Attributes that are null are left out; children may be text. */
function element(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

/** Return a new SVG element. */
function svg(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function furnished(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Return the bytes of an embedded, compressed array, or null when there is none. */
async function bytes(name) {
  const holder = byId(`blob-${name}`);
  if (!holder) return null;
  const packed = Uint8Array.from(atob(holder.textContent), (letter) => letter.charCodeAt(0));
  holder.remove(); // the text is not needed again, and may be megabytes
  const opened = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(opened).arrayBuffer();
}

/** Return embedded texts, or null. */
async function texts(name) {
  const raw = await bytes(name);
  return raw && JSON.parse(new TextDecoder().decode(raw));
}

// Numbers in words ------------------------------------------------------------------------------------------------

const signed = (shown) => shown.replace("-", MINUS);
const percent = (fraction, digits = 1) => (100 * fraction).toFixed(digits);
const fixed = (value, digits) => signed(value.toFixed(digits));
const grouped = (count) => count.toLocaleString("en-US");
const clamped = (value, low, high) => Math.min(Math.max(value, low), high);

/** Return at most about `most` round numbers that lie in [low, high]. */
function niceTicks(low, high, most) {
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((width) => (high - low) / width <= most);
  const ticks = [];
  const last = Math.floor(high / step + 1e-9);
  for (let at = Math.ceil(low / step - 1e-9); at <= last; at += 1) ticks.push(at * step || 0); // no -0
  return ticks;
}

/** Return how many digits tell `ticks` apart. */
function tickDigits(ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  return clamped(Math.ceil(-Math.log10(step) - 1e-9), 0, 8);
}

// Colours ----------------------------------------------------------------------------------------------------------

const probe = element("span", { hidden: "" });

/** Return what a colour of the style sheet is at the moment, for the canvas. */
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Return whether the page is dark now; paper never is. */
function isDark() {
  if (matchMedia("print").matches) return false;
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// Tooltip ----------------------------------------------------------------------------------------------------------

const tip = {
  /** Show lines beside a point of the window; the first is the heading. */
  show(x, y, lines) {
    const box = byId("tip");
    box.replaceChildren(...lines.map((line, at) => element(at ? "p" : "strong", {}, line)));
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
    box.style.left = `${clamped(left, 8, Math.max(8, innerWidth - width - 8))}px`;
    box.style.top = `${clamped(y - height / 2, 8, Math.max(8, innerHeight - height - 8))}px`;
  },
  hide() {
    byId("tip").hidden = true;
  },
  /** Say lines to those who listen instead. */
  speak(lines) {
    byId("spoken").textContent = lines.join(". ");
  },
};

// Axes -------------------------------------------------------------------------------------------------------------

/** A scale from numbers to pixels. */
function scale(low, high, from, to, log = false) {
  const through = log ? Math.log10 : (value) => value;
  const a = through(low);
  const b = through(high);
  return (value) => from + ((through(value) - a) / (b - a || 1)) * (to - from);
}

/** Return [low, high] with some air on both sides. */
function aired(low, high, share = 0.04) {
  const air = (high - low) * share || Math.abs(low) * 0.05 || 0.5;
  return [low - air, high + air];
}

/**
 * Return grid, ticks and names of two axes as an SVG group.
 * An axis is {at: scale, ticks: numbers, words: number -> text, name}.
 */
function axes(frame, across, up) {
  const { left, top, right, bottom } = frame;
  const group = svg("g", { class: "axes" });
  for (const tick of up.ticks) {
    const y = up.at(tick);
    group.append(
      svg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
      svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, up.words(tick)),
    );
  }
  for (const tick of across.ticks) {
    const x = across.at(tick);
    group.append(
      svg("line", { class: "notch", x1: x, x2: x, y1: bottom, y2: bottom + 5 }),
      svg("text", { x, y: bottom + 20, "text-anchor": "middle" }, across.words(tick)),
    );
  }
  group.append(
    svg("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }),
    svg("text", { class: "name", x: right, y: bottom + 40, "text-anchor": "end" }, across.name),
    svg("text", { class: "name", x: left - 8, y: top - 12, "text-anchor": left > 60 ? "end" : "start" }, up.name),
  );
  group.lastChild.setAttribute("x", 0);
  group.lastChild.setAttribute("text-anchor", "start");
  return group;
}

/** Return an SVG drawing surface that shrinks with the page, and prints. */
function surface(width, height, label) {
  return svg("svg", {
    class: "chart",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "img",
    "aria-label": label,
  });
}

/** Call `draw` now, and again whenever the width of `host` changes or the page is printed. */
function onResize(host, draw) {
  let width = 0;
  const drawIfNew = () => {
    if (host.clientWidth && Math.abs(host.clientWidth - width) > 1) {
      width = host.clientWidth;
      draw(width);
    }
  };
  drawIfNew();
  new ResizeObserver(() => requestAnimationFrame(drawIfNew)).observe(host);
}
