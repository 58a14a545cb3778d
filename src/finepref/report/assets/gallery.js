"use strict";
// Builds every gallery from its JSON island. Text reaches the page as text only, never as markup. ballot.js comes before.
(() => {
  const PAGE = 24;
  const { make } = ballot;
  const digits = (value, sign) => {
    const text = Math.abs(value) >= 1000 || value === 0 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();
    return (sign && value > 0 ? "+" : "") + text.replace("-", "\u2212");
  };

  class Gallery {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(document.getElementById(root.dataset.source).textContent);
      this.colour = new Map(this.data.models.map((model, place) => [model, `c${place && 1 + (place - 1) % 6}`]));
      this.limit = PAGE;
      this.state = { metric: this.data.metric, sort: "order", filters: {}, text: "" };
      if (this.data.tiny) root.classList.add("tinyset");
      this.controls = make("div", { class: "controls" });
      this.count = make("p", { class: "count", role: "status", "aria-live": "polite" });
      this.cards = make("div", { class: "cards" });
      this.more = make("button", { class: "more", type: "button", onclick: () => { this.limit += PAGE; this.draw(); } }, "Show more");
      root.replaceChildren(this.controls, this.count, this.cards, this.more);
      this.dialog = make("dialog", { "aria-label": "Images in large" });
      this.dialog.addEventListener("keydown", (event) => {
        if (event.key === "ArrowRight") this.step(1);
        if (event.key === "ArrowLeft") this.step(-1);
      });
      this.large = make("div");
      this.dialog.append(this.large, make("div", { class: "bar" },
        make("span", {}, make("button", { type: "button", onclick: () => this.step(-1) }, "\u2190 Previous"), " ",
          make("button", { type: "button", onclick: () => this.step(1) }, "Next \u2192")),
        make("button", { type: "button", onclick: () => this.dialog.close(), autofocus: true }, "Close")));
      root.append(this.dialog);
      if (this.data.tiny) this.dialog.classList.add("tinyset");
      this.buildControls();
      this.draw();
    }

    select(label, options, value, change) {
      const node = make("select", { onchange: () => { change(node.value); this.limit = PAGE; this.draw(); } },
        ...options.map(([key, words]) => make("option", { value: key }, words)));
      node.value = value;
      this.controls.append(make("label", {}, label, node));
    }

    buildControls() {
      const { data, state } = this;
      if (data.metrics.length > 0) {
        this.select("Metric", data.metrics.map((m) => [m.name, m.name + (m.trained.length ? " (trained on)" : "")]),
          state.metric, (value) => { state.metric = value; });
        const sorts = [["order", "prompt order"]];
        for (const model of data.models.filter((name) => data.baseline !== null && name !== data.baseline)) {
          sorts.push([`win\u0000${model}`, `largest wins of ${model}`], [`loss\u0000${model}`, `largest losses of ${model}`]);
        }
        this.select("Sort by", sorts, state.sort, (value) => { state.sort = value; });
      }
      const facets = new Map();
      for (const item of data.items) {
        for (const [tag, value] of [["prompt set", item.set], ["seed", String(item.seed)], ...Object.entries(item.tags)]) {
          if (!facets.has(tag)) facets.set(tag, new Set());
          facets.get(tag).add(value);
        }
      }
      for (const [tag, values] of facets) {
        if (values.size < 2) continue;
        this.select(tag[0].toUpperCase() + tag.slice(1), [["", "all"], ...[...values].map((value) => [value, value])], "",
          (value) => { state.filters[tag] = value; });
      }
      const search = make("input", { type: "search", placeholder: "words of a prompt" });
      search.addEventListener("input", () => { state.text = search.value.toLowerCase(); this.limit = PAGE; this.draw(); });
      this.controls.append(make("label", {}, "Find", search));
      this.controls.append(make("span", { class: "tools" },
        make("button", { type: "button", disabled: !data.items.some((item) => Object.keys(item.images).length > 1),
          onclick: () => new Duel(this).open() }, "Vote blind")));
    }

    difference(item, model) {
      const line = item.scores[this.state.metric] || {};
      const metric = this.data.metrics.find((one) => one.name === this.state.metric);
      if (!metric || line[model] === null || line[model] === undefined) return null;
      if (line[this.data.baseline] === null || line[this.data.baseline] === undefined) return null;
      return { raw: line[model] - line[this.data.baseline], better: (line[model] - line[this.data.baseline]) * (metric.higher ? 1 : -1) };
    }

    visible() {
      const { state, data } = this;
      const items = data.items.filter((item) => Object.entries(state.filters).every(([tag, wanted]) => wanted === "" ||
          (tag === "prompt set" ? item.set : tag === "seed" ? String(item.seed) : item.tags[tag] || "") === wanted)
        && item.prompt.toLowerCase().includes(state.text));
      if (state.sort === "order") return items;
      const [kind, model] = state.sort.split("\u0000");
      const sign = kind === "win" ? -1 : 1;
      return items.map((item) => [item, this.difference(item, model)]).filter(([, found]) => found !== null)
        .sort((a, b) => sign * (a[1].better - b[1].better)).map(([item]) => item);
    }

    draw() {
      this.shown = this.visible();
      const there = this.shown.slice(0, this.limit);
      const cut = this.shown.length > this.limit ? `; here are the first ${this.limit.toLocaleString("en")}` : "";
      this.count.textContent = `${this.shown.length.toLocaleString("en")} of ${this.data.items.length.toLocaleString("en")} sets of images${cut}`;
      this.cards.replaceChildren(...there.map((item, place) => this.card(item, place)));
      this.more.hidden = this.shown.length <= this.limit;
    }

    caption(item, model) {
      const words = make("figcaption", {}, make("span", { class: this.colour.get(model) }, make("i", { class: "swatch" }), model));
      const found = model === this.data.baseline ? null : this.difference(item, model);
      if (found) words.append(make("span", { class: `delta ${found.better > 0 ? "up" : found.better < 0 ? "down" : ""}` }, digits(found.raw, true)));
      return words;
    }

    picture(item, model) {
      const source = item.images[model];
      return source ? make("img", { src: source, alt: `${model}: ${item.prompt}`, decoding: "async" })
        : make("div", { class: "gone" }, item.paths[model] ? "missing" : "not made");
    }

    card(item, place) {
      const figures = this.data.models.map((model) => make("figure", {},
        make("button", { type: "button", "aria-label": `Enlarge ${model}`, onclick: () => this.open(place) }, this.picture(item, model)),
        this.caption(item, model)));
      const tags = Object.values(item.tags).join(", ");
      return make("article", { class: "card" }, make("div", { class: "images" }, ...figures), make("p", {}, item.prompt || "(empty prompt)"),
        make("div", { class: "meta" }, `${item.set} ${item.row}, seed ${item.seed}${tags ? `, ${tags}` : ""}`));
    }

    open(place) {
      this.place = place;
      this.fill();
      if (!this.dialog.open) this.dialog.showModal();
    }

    step(by) {
      this.place = (this.place + by + this.shown.length) % this.shown.length;
      this.fill();
    }

    fill() {
      const item = this.shown[this.place];
      const figures = this.data.models.map((model) => {
        const rows = this.data.metrics.map((metric) => {
          const value = (item.scores[metric.name] || {})[model];
          return make("tr", {}, make("th", {}, metric.name), make("td", {}, value === null || value === undefined ? "\u2013" : digits(value, false)));
        });
        return make("figure", {}, this.picture(item, model), this.caption(item, model), make("table", {}, make("tbody", {}, ...rows)));
      });
      this.large.replaceChildren(
        make("h3", {}, item.prompt || "(empty prompt)"),
        make("div", { class: "soft" }, `${item.set} ${item.row}, seed ${item.seed}; ${this.place + 1} of ${this.shown.length}`),
        make("div", { class: "big" }, ...figures));
    }
  }

  const WORDS = {
    progress: "{done} of {of} pairs", none: "No more pairs", no_prompt: "(empty prompt)", how_pair: "", loading: "Loading \u2026",
    load_failed: "The images do not load.", saving: "", left: "left", right: "right", upper: "upper", lower: "lower", tie: "Tie",
    left_picture: "left image", right_picture: "right image", upper_picture: "upper image", lower_picture: "lower image",
    undo: "Undo", undo_none: "", zoom: "Zoom", submit: "Next", skip: "Skip", key_space: "Space",
  };

  // Two images of one prompt and seed, sides drawn at random, names hidden; votes leave as csv for `finepref arena`.
  class Duel {
    constructor(gallery) {
      this.data = gallery.data;
      this.items = gallery.shown.filter((item) => Object.keys(item.images).length > 1);
      this.votes = [];
      this.dialog = make("dialog", { "aria-label": "Blind vote" });
      this.name = make("input", { type: "text", placeholder: "your name", "aria-label": "Your name" });
      this.tallied = make("div");
      this.reveal = make("button", { type: "button", onclick: () => this.tallied.replaceChildren(this.tally()) }, "Reveal");
      this.keep = make("button", { class: "primary", type: "button", onclick: () => this.save() }, "Save votes");
      const root = make("div");
      this.ballot = new ballot.Ballot(root, this, WORDS, { choices: ["left", "tie", "right"], keys: this.dialog });
      this.dialog.append(root, this.tallied, make("div", { class: "bar" }, this.reveal,
        make("span", {}, this.name, " ", this.keep, " ", make("button", { type: "button", onclick: () => this.dialog.close() }, "Close"))));
      this.dialog.addEventListener("close", () => { this.ballot.stop(); this.dialog.remove(); });
      gallery.root.append(this.dialog);
    }

    random(count) {
      return crypto.getRandomValues(new Uint32Array(1))[0] % count;
    }

    open() {
      this.deck = this.items.flatMap((item) => {
        const models = this.data.models.filter((model) => item.images[model]);
        return models.flatMap((one, place) => models.slice(place + 1).map((other) => [item, one, other]));
      });
      for (let place = this.deck.length - 1; place > 0; place -= 1) {
        const other = this.random(place + 1);
        [this.deck[place], this.deck[other]] = [this.deck[other], this.deck[place]];
      }
      this.deck = this.deck.map(([item, one, other]) => (this.random(2) ? [item, one, other] : [item, other, one]));
      this.dialog.showModal();
      this.ballot.start();
    }

    // The source of the ballot: next, answer, undo, progress.

    async next() {
      this.reveal.disabled = this.keep.disabled = this.votes.length === 0;
      const place = this.votes.length;
      if (place >= this.deck.length) return null;
      const [item, left, right] = this.deck[place];
      return { id: String(place), prompt: item.prompt, images: [item.images[left], item.images[right]], mode: "pair",
        questions: [{ name: "winner", text: "Which image is better?" }], answers: null };
    }

    async answer(set, { winner }) {
      const [item, left, right] = this.deck[this.votes.length];
      this.votes.push({ vote_id: crypto.randomUUID ? crypto.randomUUID() : String(Date.now() + this.votes.length), left, right, winner,
        left_image: item.paths[left], right_image: item.paths[right], prompt: item.prompt, time: new Date().toISOString() });
      this.tallied.replaceChildren();
    }

    async undo() {
      const vote = this.votes.pop();
      this.tallied.replaceChildren();
      return vote ? { ...await this.next(), answers: { winner: vote.winner } } : null;
    }

    async progress() {
      return { done: this.votes.length, of: this.deck.length };
    }

    csv() {
      const columns = ["vote_id", "left", "right", "winner", "left_image", "right_image", "prompt", "voter", "time"];
      const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
      const lines = this.votes.map((vote) => columns.map((name) => quoted(name === "voter" ? this.name.value || "reader" : vote[name])).join(","));
      return `${[columns.join(","), ...lines].join("\n")}\n`;
    }

    save() {
      const link = make("a", { href: URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" })), download: "votes.csv" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    tally() {
      const wins = new Map(this.data.models.map((model) => [model, [0, 0, 0]]));
      for (const { left, right, winner } of this.votes) {
        for (const [model, side] of [[left, "left"], [right, "right"]]) wins.get(model)[winner === "tie" ? 1 : winner === side ? 0 : 2] += 1;
      }
      return make("table", {}, make("thead", {}, make("tr", {}, ...["Model", "Wins", "Ties", "Losses"].map((word) => make("th", {}, word)))),
        make("tbody", {}, ...[...wins].map(([model, counts]) => make("tr", {}, make("th", {}, model), ...counts.map((n) => make("td", {}, String(n)))))));
    }
  }

  for (const root of document.querySelectorAll(".gallery")) new Gallery(root);
})();
