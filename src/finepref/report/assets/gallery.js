"use strict";
// Builds every gallery from its JSON island. Text reaches the page as text only, never as markup.
(() => {
  const PAGE = 24;
  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") node.className = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
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
      this.count.textContent = `${this.shown.length.toLocaleString("en")} of ${this.data.items.length.toLocaleString("en")} sets of images`;
      this.cards.replaceChildren(...there.map((item, place) => this.card(item, place)));
      this.more.hidden = this.shown.length <= this.limit;
    }

    caption(item, model) {
      const words = make("figcaption", {}, make("span", { class: this.colour.get(model) }, make("i", { class: "swatch" }), model));
      const found = model === this.data.baseline ? null : this.difference(item, model);
      if (found) words.append(make("span", { class: `delta ${found.better >= 0 ? "up" : "down"}` }, digits(found.raw, true)));
      return words;
    }

    picture(item, model) {
      const source = item.images[model];
      return source ? make("img", { src: source, alt: `${model}: ${item.prompt}`, loading: "lazy" })
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

  // Two images of one prompt and seed, sides drawn at random, names hidden; votes leave as csv for `finepref arena`.
  class Duel {
    constructor(gallery) {
      this.data = gallery.data;
      this.items = gallery.shown.filter((item) => Object.keys(item.images).length > 1);
      this.votes = [];
      this.voter = "";
      this.dialog = make("dialog", { "aria-label": "Blind vote" });
      if (this.data.tiny) this.dialog.classList.add("tinyset");
      this.dialog.addEventListener("keydown", (event) => {
        if (event.target.tagName === "INPUT") return;
        const winner = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" }[event.key];
        if (winner) { event.preventDefault(); this.vote(winner); }
        if (event.key === "Backspace") this.undo();
      });
      this.dialog.addEventListener("close", () => this.dialog.remove());
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
      this.draw();
      this.dialog.showModal();
    }

    vote(winner) {
      const pair = this.deck[this.votes.length];
      if (!pair) return;
      const [item, left, right] = pair;
      this.votes.push({ vote_id: crypto.randomUUID ? crypto.randomUUID() : String(Date.now() + this.votes.length), left, right, winner,
        left_image: item.paths[left], right_image: item.paths[right], prompt: item.prompt, time: new Date().toISOString() });
      this.draw();
    }

    undo() {
      this.votes.pop();
      this.draw();
    }

    csv() {
      const columns = ["vote_id", "left", "right", "winner", "left_image", "right_image", "prompt", "voter", "time"];
      const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
      const lines = this.votes.map((vote) => columns.map((name) => quoted(name === "voter" ? this.voter || "reader" : vote[name])).join(","));
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

    draw(shown) {
      const pair = this.deck[this.votes.length];
      const side = (name, model) => make("button", { type: "button", "data-side": name, onclick: () => this.vote(name) },
        make("img", { src: pair[0].images[model], alt: `${name} image` }), make("span", {}, name));
      const name = make("input", { type: "text", value: this.voter, placeholder: "your name", "aria-label": "Your name" });
      name.addEventListener("input", () => { this.voter = name.value; });
      this.dialog.replaceChildren(
        make("h3", {}, pair ? pair[0].prompt || "(empty prompt)" : "No more pairs"),
        make("div", { class: "soft" }, `Which image is better? ${this.votes.length} of ${this.deck.length} pairs. `, make("span", { class: "keys" },
          make("kbd", {}, "\u2190"), " ", make("kbd", {}, "\u2192"), " ", make("kbd", {}, "\u2193"), " tie, ", make("kbd", {}, "Backspace"), " undo")),
        pair ? make("div", { class: "duel" }, side("left", pair[1]), side("right", pair[2])) : "",
        shown ? this.tally() : "",
        make("div", { class: "bar" },
          make("span", {}, make("button", { type: "button", disabled: !pair, onclick: () => this.vote("tie") }, "Tie"), " ",
            make("button", { type: "button", disabled: !this.votes.length, onclick: () => this.undo() }, "Undo"), " ",
            make("button", { type: "button", disabled: !this.votes.length, onclick: () => this.draw(true) }, "Reveal")),
          make("span", {}, name, " ", make("button", { class: "primary", type: "button", disabled: !this.votes.length, onclick: () => this.save() }, "Save votes"), " ",
            make("button", { type: "button", onclick: () => this.dialog.close() }, "Close"))));
      const focus = this.dialog.querySelector(".duel button") || this.dialog.querySelector("button");
      if (!shown) focus.focus();
    }
  }

  for (const root of document.querySelectorAll(".gallery")) new Gallery(root);
})();
