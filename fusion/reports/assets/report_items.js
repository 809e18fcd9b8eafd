// Question by question: filters, pages, and a grid of who was right.

const ROWS = 25;
const SILENT = -1;
const MARKS = { right: "\u2713", wrong: "\u00d7", silent: "\u2013" };
const WORDS = { right: "right", wrong: "wrong", silent: "no answer" };

/** Return the name of an option: a letter, and a number where letters end. */
const optionName = (at) => (at < 0 ? MARKS.silent : at < 26 ? String.fromCharCode(65 + at) : String(at + 1));

/** All answers, decoded, and what follows from them for each question. */
class Items {
  static async load() {
    const [raw, ids, codes] = [await bytes("answers"), await texts("ids"), await bytes("categories")];
    const all = data.answer_bytes === 2 ? new Int16Array(raw) : new Int8Array(raw);
    return new Items(all, ids, codes && new Uint32Array(codes), await texts("questions"), await texts("options"));
  }

  constructor(all, ids, codes, questions, options) {
    Object.assign(this, { ids, codes, questions, options, count: ids.length });
    const columns = [];
    for (let from = 0; from < all.length; from += this.count) columns.push(all.subarray(from, from + this.count));
    this.members = columns.slice(0, data.agents.length);
    this.ensembles = columns.slice(data.agents.length, data.agents.length + data.ensembles.length);
    this.labels = data.accuracy ? columns.at(-1) : null;
    this.found = null; // what is searched, in small letters, made when first needed
    this.derive();
  }

  /** Count for each question who is right and who is silent, and whether two answers differ. */
  derive() {
    this.right = new Uint16Array(this.count);
    this.silent = new Uint16Array(this.count);
    this.split = new Uint8Array(this.count);
    const first = new Int16Array(this.count).fill(SILENT);
    for (const answers of this.members) {
      for (let at = 0; at < this.count; at += 1) {
        const answer = answers[at];
        if (answer < 0) this.silent[at] += 1;
        else if (first[at] < 0) first[at] = answer;
        else if (first[at] !== answer) this.split[at] = 1;
        if (answer >= 0 && this.labels && answer === this.labels[at]) this.right[at] += 1;
      }
    }
  }

  /** Return right, wrong or silent; without labels, given or silent. */
  state(answers, at) {
    if (answers[at] < 0) return "silent";
    if (!this.labels) return "given";
    return answers[at] === this.labels[at] ? "right" : "wrong";
  }

  searched() {
    this.found ??= this.ids.map((id, at) => `${id}\n${this.questions ? this.questions[at] : ""}`.toLowerCase());
    return this.found;
  }

  /** Return the questions that a filter lets through. */
  matching({ filter, k, agent, ensemble, category, search }) {
    const kept = [];
    const needle = search.trim().toLowerCase();
    const hay = needle ? this.searched() : null;
    const test = this.test(filter, { k, agent, ensemble });
    for (let at = 0; at < this.count; at += 1) {
      if (category >= 0 && this.codes[at] !== category) continue;
      if (hay && !hay[at].includes(needle)) continue;
      if (test(at)) kept.push(at);
    }
    return kept;
  }

  test(filter, { k, agent, ensemble }) {
    const { right, silent, split, members } = this;
    const chosen = this.ensembles[ensemble];
    return {
      all: () => true,
      missed: (at) => right[at] >= k && this.state(chosen, at) !== "right",
      saved: (at) => 2 * right[at] < members.length && this.state(chosen, at) === "right",
      only: (at) => right[at] === 1 && this.state(members[agent], at) === "right",
      nobody: (at) => right[at] === 0,
      split: (at) => split[at] === 1,
      silent: (at) => silent[at] > 0,
    }[filter];
  }
}

class ItemBrowser {
  constructor(items) {
    this.items = items;
    this.page = 0;
    this.order = items.labels ? byAccuracy() : data.agents.map((_, agent) => agent);
    this.fill();
    this.listen();
    this.filter();
  }

  fill() {
    const labelled = Boolean(this.items.labels);
    const ensembles = data.ensembles.length > 0;
    const filters = [
      ["all", "all questions", true],
      ["missed", "ensemble wrong though k members or more right", labelled && ensembles],
      ["saved", "ensemble right though most members wrong", labelled && ensembles],
      ["only", "only one member right", labelled],
      ["nobody", "all members wrong", labelled],
      ["split", "members disagree", true],
      ["silent", "some member silent", true],
    ];
    const options = (id, entries) =>
      byId(id).append(...entries.map(([value, words]) => element("option", { value }, words)));
    options(
      "items-filter",
      filters.filter(([, , there]) => there),
    );
    options(
      "items-agent",
      this.order.map((agent) => [agent, data.agents[agent]]),
    );
    options(
      "items-ensemble",
      data.ensembles.map((name, at) => [at, name]),
    );
    options("items-category", [[-1, "all"], ...(data.categories ?? []).map((name, at) => [at, name])]);
    options(
      "items-cells",
      labelled
        ? [
            ["marks", "right or wrong"],
            ["letters", "the answers"],
          ]
        : [["letters", "the answers"]],
    );
    byId("items-category-label").hidden = !data.categories;
    byId("items-cells").parentNode.hidden = !labelled;
  }

  listen() {
    const form = byId("items-form");
    form.addEventListener("input", () => this.filter());
    form.addEventListener("submit", (event) => event.preventDefault());
    const turns = { first: () => 0, prev: () => this.page - 1, next: () => this.page + 1, last: () => Infinity };
    for (const [name, to] of Object.entries(turns))
      byId(`items-${name}`).addEventListener("click", () => this.show(to()));
    byId("items-page").addEventListener("change", (event) => this.show(Number(event.target.value) - 1));
    const sheet = byId("items-sheet");
    sheet.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-at]");
      if (row) this.toggle(row);
    });
    sheet.addEventListener("pointermove", (event) => {
      const words = event.target.closest("td.cell")?.getAttribute("aria-label");
      const cut = words?.lastIndexOf(": ");
      if (words) tip.show(event.clientX, event.clientY, [words.slice(0, cut), words.slice(cut + 2)]);
      else tip.hide();
    });
    sheet.addEventListener("pointerleave", () => tip.hide());
  }

  filter() {
    const filter = byId("items-filter").value;
    byId("items-k-label").hidden = filter !== "missed";
    byId("items-agent-label").hidden = filter !== "only";
    byId("items-ensemble-label").hidden = !["missed", "saved"].includes(filter) || data.ensembles.length < 2;
    this.letters = byId("items-cells").value === "letters";
    this.kept = this.items.matching({
      filter,
      k: Number(byId("items-k").value) || 0,
      agent: Number(byId("items-agent").value),
      ensemble: Number(byId("items-ensemble").value),
      category: Number(byId("items-category").value),
      search: byId("items-search").value,
    });
    this.explain();
    this.show(0);
  }

  /** Say what the cells mean. */
  explain() {
    const states = this.items.labels ? Object.keys(MARKS) : ["silent"];
    const shown = (state) => (this.letters && state !== "silent" ? "A" : MARKS[state]);
    byId("items-legend").replaceChildren(
      ...states.map((state) =>
        element("li", {}, element("span", { class: `cell ${state}` }, shown(state)), WORDS[state]),
      ),
    );
  }

  show(page) {
    const { kept } = this;
    const pages = Math.max(1, Math.ceil(kept.length / ROWS));
    this.page = clamped(Number.isNaN(page) ? 0 : Math.floor(page), 0, pages - 1);
    const from = this.page * ROWS;
    const shown = kept.slice(from, from + ROWS);
    const part = kept.length ? `, ${grouped(from + 1)}\u2013${grouped(from + shown.length)} shown` : "";
    byId("items-count").textContent = `${grouped(kept.length)} of ${grouped(this.items.count)} questions${part}`;
    byId("items-count").dataset.count = kept.length;
    byId("items-page").value = this.page + 1;
    byId("items-page").max = pages;
    byId("items-pages").textContent = `of ${grouped(pages)}`;
    for (const name of ["first", "prev"]) byId(`items-${name}`).disabled = this.page === 0;
    for (const name of ["next", "last"]) byId(`items-${name}`).disabled = this.page === pages - 1;
    tip.hide();
    byId("items-sheet").replaceChildren(
      shown.length ? this.table(shown) : element("p", { class: "empty" }, "No question is like that."),
    );
  }

  table(shown) {
    const labelled = Boolean(this.items.labels);
    const upright = (name, kind) => element("th", { scope: "col", class: kind }, element("span", {}, name));
    const head = element("tr", {}, element("th", { scope: "col", class: "id" }, "question"));
    if (data.categories) head.append(element("th", { scope: "col", class: "category" }, "category"));
    if (labelled)
      head.append(element("th", { scope: "col", class: "num" }, "right"), element("th", { scope: "col" }, "key"));
    head.append(...data.ensembles.map((name) => upright(name, "upright ensemble")));
    head.append(
      ...this.order.map((agent, place) => upright(data.agents[agent], place ? "upright" : "upright leading")),
    );
    head.append(element("td", { class: "rest" })); // takes the room that few members leave
    return element(
      "table",
      { class: "items" },
      element("thead", {}, head),
      element("tbody", {}, ...shown.map((at) => this.row(at))),
    );
  }

  row(at) {
    const { items } = this;
    const opener = element("button", { type: "button", "aria-expanded": "false" }, items.ids[at]);
    const row = element("tr", { "data-at": at }, element("th", { scope: "row", class: "id" }, opener));
    if (data.categories) row.append(element("td", { class: "category" }, data.categories[items.codes[at]]));
    if (items.labels)
      row.append(
        element("td", { class: "num" }, `${items.right[at]}/${data.agents.length}`),
        element("td", { class: "key" }, optionName(items.labels[at])),
      );
    items.ensembles.forEach((answers, place) => row.append(this.cell(data.ensembles[place], answers, at, "ensemble")));
    this.order.forEach((agent, place) =>
      row.append(this.cell(data.agents[agent], items.members[agent], at, place ? "" : "leading")),
    );
    row.append(element("td", { class: "rest" }));
    return row;
  }

  cell(name, answers, at, kind) {
    const state = this.items.state(answers, at);
    const letter = optionName(answers[at]);
    const words = state === "silent" ? WORDS.silent : `${letter}${state === "given" ? "" : `, ${WORDS[state]}`}`;
    const shown = this.letters ? letter : MARKS[state];
    return element(
      "td",
      { class: `cell ${state} ${kind}`, "aria-label": `${name}: ${words}` },
      element("span", {}, shown),
    );
  }

  /** Open or close the lines below a question. */
  toggle(row) {
    const opener = row.querySelector("button");
    const open = opener.getAttribute("aria-expanded") === "true";
    opener.setAttribute("aria-expanded", String(!open));
    if (open) row.nextSibling.remove();
    else
      row.after(
        element(
          "tr",
          { class: "opened" },
          element("td", { colspan: row.children.length }, this.detail(Number(row.dataset.at))),
        ),
      );
  }

  detail(at) {
    const { items } = this;
    const wordings = items.options?.[at] ?? [];
    const label = items.labels ? items.labels[at] : null;
    const voters = new Map(wordings.map((_, option) => [option, []]));
    if (label !== null && label >= 0 && !voters.has(label)) voters.set(label, []);
    const vote = (name, answer) => (voters.has(answer) ? voters.get(answer).push(name) : voters.set(answer, [name]));
    this.order.forEach((agent) => vote(data.agents[agent], items.members[agent][at]));
    const lines = [...voters]
      .sort(([a], [b]) => (a < 0) - (b < 0) || a - b)
      .map(([option, names]) =>
        element(
          "tr",
          { class: option === label && option >= 0 ? "truth" : null },
          element("th", { scope: "row" }, optionName(option)),
          element(
            "td",
            {},
            option < 0 ? "no answer" : (wordings[option] ?? ""),
            option === label && option >= 0 ? element("em", {}, " right answer") : null,
          ),
          element("td", { class: "num" }, String(names.length)),
          element("td", { class: "voters" }, names.join(", ")),
        ),
      );
    const ensembles = data.ensembles
      .map((name, place) => `${name}: ${optionName(items.ensembles[place][at])}`)
      .join(" \u00b7 ");
    return element(
      "div",
      { class: "detail" },
      element(
        "p",
        { class: "id" },
        [items.ids[at], items.codes && data.categories[items.codes[at]]].filter(Boolean).join(" \u00b7 "),
      ),
      items.questions ? element("p", { class: "asked" }, items.questions[at]) : null,
      element("table", {}, element("tbody", {}, ...lines)),
      ensembles ? element("p", { class: "decided" }, ensembles) : null,
      label === SILENT ? element("p", {}, "The right answer is not among the options.") : null,
    );
  }
}
