"use strict";
// Shows one set of pictures and takes the answers to its questions: for the blind vote of a report, and for the vote
// server. Text reaches the page as text only, never as markup.
//
//   const vote = new ballot.Ballot(root, source, texts, options); vote.start();
//
// source   Promises: next() -> a set, or null where there is none; answer(set, answers, measures), which resolves when
//          the answer is kept, and not before that the page goes on; undo() -> the set answered last with its answers,
//          or null; progress() -> {done, of: number or null}. What a rejected promise says is shown.
// set      {id, prompt, images: [address], mode: "pair", "rank" or "best", questions: [{name, text}],
//          answers: null or {name: value}}
// value    "skip"; in a pair also left, right, tie, both_bad; in a ranking the rank of each picture in the order shown,
//          [1, 2, 2, 4]; in "best" the number of the picture, from 0.
// measures {milliseconds, loaded, device, input}: how long the pictures were looked at since all were there (not while
//          the page was hidden or held), how long they took to load, phone|tablet|desktop, key|mouse|touch.
// texts    Words by name, as in collect/texts.py. Words in {} are filled in.
// options  choices: answers of a pair that are offered; keys: what hears the keys (document); count: the element that
//          tells how far the voter is (one is made); shown(set), ended(): called when a set, or none, is shown.
// Other methods: hold(on) stops the clock and the keys; load(set) loads pictures ahead; undo(); refresh() tells anew how
// far the voter is; stop() hears nothing any more.
const ballot = (() => {
  const CHOICES = ["left", "tie", "both_bad", "right", "skip"];
  const ARROWS = { ArrowLeft: "left", ArrowDown: "tie", ArrowUp: "both_bad", ArrowRight: "right", " ": "skip" };
  const SIGNS = { left: "\u2190", tie: "\u2193", both_bad: "\u2191", right: "\u2192" };
  const KEPT = 8; // sets whose pictures stay in memory
  const HOLD = 350; // milliseconds after which a press is no answer but a closer look
  const MOVED = 7; // pixels after which a press is a drag

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
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
  const cap = (sign) => make("kbd", { class: "keys", "aria-hidden": "true" }, sign);
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const typing = (node) => node instanceof Element && node.closest("input, textarea, select, [contenteditable]") !== null;
  const device = () => {
    if (!matchMedia("(pointer: coarse)").matches) return "desktop";
    return Math.min(screen.width, screen.height) < 600 ? "phone" : "tablet";
  };

  // An order is a list of groups of pictures, the best first; those of one group are tied.
  const without = (groups, place) =>
    groups.map((group) => group.filter((one) => one !== place)).filter((group) => group.length > 0);
  const rankOf = (groups, place) => {
    const at = groups.findIndex((group) => group.includes(place));
    return at < 0 ? null : 1 + groups.slice(0, at).flat().length;
  };
  const grouped = (ranks) => [...new Set(ranks)].sort((one, other) => one - other)
    .map((rank) => ranks.flatMap((found, place) => (found === rank ? [place] : [])));

  // Loads a picture, again and again with growing pauses.
  const arrive = (image, address, record) => new Promise((resolve) => {
    let wait = 500;
    image.addEventListener("load", () => resolve(), { once: true });
    image.addEventListener("error", () => {
      record.failed = true;
      if (record.trouble) record.trouble();
      if (!record.dropped) setTimeout(() => { image.removeAttribute("src"); image.src = address; }, wait);
      wait = Math.min(2 * wait, 15000);
    });
    image.src = address;
  });

  // The pictures of a set, as large as they can be, and a closer look at the same place of all of them.
  class Stage {
    constructor(node, changed) {
      Object.assign(this, { node, changed, images: [], spot: [50, 50], zoomed: false, stacked: false });
      this.watch = new ResizeObserver(() => this.arrange());
      this.watch.observe(node);
    }

    show(images, shots) {
      this.images = images;
      this.zoom(false);
      this.node.classList.toggle("tinyset", images.length > 0 && images.every((image) => image.naturalWidth <= 64));
      this.node.replaceChildren(...shots);
    }

    // The number of columns that shows the pictures largest. Below each other, a pair of pictures has no left and right.
    arrange() {
      const { node, images } = this;
      const frames = [...node.querySelectorAll(".frame")];
      if (frames.length === 0) return;
      const gap = parseFloat(getComputedStyle(node).columnGap) || 0;
      const mark = node.querySelector(".mark").offsetHeight;
      const ratios = images.map((image) => image.naturalWidth / image.naturalHeight || 1);
      const { paddingLeft, borderLeftWidth } = getComputedStyle(frames[0].parentElement);
      const edge = 2 * (parseFloat(paddingLeft) + parseFloat(borderLeftWidth));
      const found = images.map((_, place) => place + 1).map((columns) => {
        const rows = Math.ceil(images.length / columns);
        const width = (node.clientWidth - gap * (columns - 1)) / columns - edge;
        const height = (node.clientHeight - gap * (rows - 1)) / rows - edge - mark;
        const widths = ratios.map((ratio) => Math.floor(Math.max(24, Math.min(width, height * ratio))));
        return { columns, widths, least: Math.min(...widths), empty: rows * columns - images.length };
      });
      const narrow = matchMedia("(pointer: coarse)").matches || node.clientWidth < 440;
      // More columns only for clearly larger pictures, or where fewer would leave a place empty.
      const larger = (one, other) => other.least > 1.05 * one.least || (other.least > 0.95 * one.least && other.empty < one.empty);
      const best = images.length === 2 && !narrow ? found[1] : found.reduce((one, other) => (larger(one, other) ? other : one));
      node.style.setProperty("--columns", best.columns);
      frames.forEach((frame, place) => {
        frame.style.width = `${best.widths[place]}px`;
        frame.style.height = `${Math.round(best.widths[place] / ratios[place])}px`;
      });
      const stacked = images.length === 2 && best.columns === 1;
      if (stacked !== this.stacked) { this.stacked = stacked; this.changed(); }
    }

    zoom(on) {
      this.zoomed = on;
      if (on) {
        const frames = [...this.node.querySelectorAll(".frame")];
        const most = Math.max(...frames.map((frame, place) => this.images[place].naturalWidth / (frame.clientWidth || 1)));
        this.node.style.setProperty("--zoom", within(most, 2.5, 8));
        this.aim(...this.spot);
      }
      this.node.classList.toggle("zoomed", on);
    }

    point(event) {
      const frame = event.target.closest(".shot")?.querySelector(".frame").getBoundingClientRect();
      if (frame) this.aim(100 * (event.clientX - frame.left) / frame.width, 100 * (event.clientY - frame.top) / frame.height);
    }

    aim(x, y) {
      this.spot = [within(x, 0, 100), within(y, 0, 100)];
      this.node.style.setProperty("--x", `${this.spot[0]}%`);
      this.node.style.setProperty("--y", `${this.spot[1]}%`);
    }

    step(name) {
      const [x, y] = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[name];
      this.aim(this.spot[0] + x, this.spot[1] + y);
    }
  }

  class Ballot {
    constructor(root, source, texts, options = {}) {
      Object.assign(this, { root, source, texts, options, choices: CHOICES, set: null, questions: [], steps: [], active: 0 });
      Object.assign(this, { loads: new Map(), single: true, held: false, input: "mouse", spent: 0, since: null });
      if (options.choices) this.choices = CHOICES.filter((choice) => options.choices.includes(choice));
      this.count = options.count || make("p", { class: "count", role: "status", "aria-live": "polite" });
      this.prompt = make("h2", { class: "prompt", id: "prompt" }, texts.loading);
      this.how = make("p", { class: "how" });
      this.stage = new Stage(make("div", { class: "duel" }), () => { if (this.set) this.redraw(); });
      this.asks = make("div", { class: "asks" });
      this.message = make("p", { class: "note", role: "alert", hidden: true });
      const tool = (name, sign, shortcut, does) => make("button", { type: "button", class: name, "aria-keyshortcuts": shortcut,
        onclick: (event) => { this.clicked(event); does(); } }, texts[name], cap(sign));
      this.undoing = tool("undo", "\u232b", "Backspace", () => this.undo());
      this.zooming = tool("zoom", "Z", "Z", () => this.zoom(!this.stage.zoomed));
      this.submitting = tool("submit", "\u23ce", "Enter", () => this.submit());
      this.submitting.classList.add("primary");
      root.classList.add("ballot");
      for (const [name, value] of [["tabindex", "-1"], ["role", "group"], ["aria-labelledby", "prompt"]]) root.setAttribute(name, value);
      root.replaceChildren(...(options.count ? [] : [this.count]), this.prompt, this.how, this.stage.node, this.message,
        make("div", { class: "foot" }, this.asks, make("div", { class: "steer" }, this.undoing, this.zooming, this.submitting)));
      this.listen();
      this.become("waiting");
    }

    async start() {
      this.become("waiting");
      try {
        await this.show(await this.source.next());
      } catch (error) {
        this.say(error.message);
      }
    }

    stop() {
      this.heard.abort();
      this.stage.watch.disconnect();
      this.set = null;
    }

    hold(on) {
      this.held = on;
      this.tick();
      if (!on) this.focus();
    }

    load(set) {
      const record = this.loads.get(set.id) || { images: set.images.map(() => make("img", { draggable: "false" })), took: null };
      this.loads.delete(set.id);
      this.loads.set(set.id, record);
      if (record.ready) return record;
      const begun = performance.now();
      record.ready = Promise.all(record.images.map((image, place) => arrive(image, set.images[place], record)))
        .then(() => { record.took = performance.now() - begun; });
      for (const [id, old] of this.loads) {
        if (this.loads.size <= KEPT) break;
        old.dropped = true;
        this.loads.delete(id);
      }
      return record;
    }

    async show(set) {
      this.set = set;
      this.say("");
      this.refresh();
      this.begin(set);
      if (set === null) return;
      const record = this.load(set);
      this.record = record;
      if (record.took === null) {
        record.trouble = () => { if (this.set === set) this.say(this.texts.load_failed); };
        if (record.failed) record.trouble();
        this.stage.show([], [make("p", { class: "soft" }, this.texts.loading)]);
        this.become("loading");
        this.redraw();
        this.focus();
        await record.ready;
        if (this.set !== set) return;
        this.say("");
      }
      this.stage.show(record.images, record.images.map((image, place) => this.shot(image, place)));
      this.redraw();
      this.stage.arrange();
      this.become("open");
      this.focus();
      if (this.options.shown) this.options.shown(set);
    }

    // Fresh questions, answered as they were where the answer was undone.
    begin(set) {
      const known = (set && set.answers) || {};
      this.questions = (set ? set.questions : []).map(({ name, text }) => {
        const ranks = Array.isArray(known[name]) ? known[name] : [];
        return { name, text, tie: false, groups: grouped(ranks), value: ranks.length ? undefined : known[name] };
      });
      this.steps = [];
      this.active = Math.max(0, this.questions.findIndex((question) => !this.complete(question)));
      this.many = this.questions.length > 1;
      this.single = !this.many && !(set && set.mode === "rank"); // one press is the whole answer
      Object.assign(this, { spent: 0, since: null });
      this.root.dataset.mode = set ? set.mode : "none";
      this.root.dataset.questions = this.many ? "many" : "one";
      this.prompt.textContent = set ? set.prompt || this.texts.no_prompt : this.texts.none;
      this.prompt.scrollTop = 0;
      const words = set ? [this.many ? "" : this.questions[0].text, this.texts[`how_${set.mode}`]] : [];
      this.how.textContent = words.filter((word) => word).join(" ");
      if (set !== null) return;
      this.stage.show([], []);
      this.become("ended");
      this.redraw();
      this.focus();
      if (this.options.ended) this.options.ended();
    }

    // waiting: for the source; loading: pictures; open: for the voter; ended: there is no set.
    become(state) {
      this.state = state;
      this.root.setAttribute("aria-busy", String(state === "waiting" || state === "loading"));
      if (state !== "open" && this.stage.zoomed) this.zoom(false);
      this.tick();
      this.able();
    }

    able() {
      const off = (button, is) => button.setAttribute("aria-disabled", String(is));
      this.zooming.hidden = this.state === "ended";
      this.submitting.hidden = this.single;
      off(this.undoing, this.state === "waiting" || !(this.steps.length > 0 || this.before));
      off(this.zooming, this.state !== "open");
      off(this.submitting, this.state !== "open" || !this.questions.every((question) => this.complete(question)));
    }

    // Counts the time up to now, and goes on where the voter looks at the pictures.
    tick() {
      const now = performance.now();
      if (this.since !== null) this.spent += now - this.since;
      this.since = this.state === "open" && !this.held && !document.hidden ? now : null;
    }

    say(text) {
      this.message.hidden = text === "";
      this.message.textContent = text;
    }

    async refresh() {
      const { done, of } = await this.source.progress();
      const text = fill(of === null ? this.texts.progress_open : this.texts.progress, { done, of });
      if (this.count.textContent !== text) this.count.textContent = text;
      this.before = done > 0;
      this.able();
    }

    // To the set, which a screen reader calls by its prompt; not out of a text that is written, or another part of the page.
    focus() {
      const now = document.activeElement;
      const free = now === null || now === document.body || now.contains(this.root) || this.root.contains(now);
      if (this.prompt.scrollHeight > this.prompt.clientHeight + 2) this.prompt.tabIndex = 0;
      else this.prompt.removeAttribute("tabindex");
      if (free && !this.held && !typing(now)) this.root.focus({ preventScroll: true });
    }

    // What is shown

    named(place) {
      if (this.set.mode !== "pair") return fill(this.texts.picture, { n: place + 1 });
      return this.texts[`${this.side(["left", "right"][place])}_picture`];
    }

    side(choice) {
      return this.stage.stacked ? { left: "upper", right: "lower" }[choice] || choice : choice;
    }

    shot(image, place) {
      const { mode } = this.set;
      return make("button", { type: "button", class: "shot", "data-place": place,
        "aria-keyshortcuts": mode === "pair" ? ["ArrowLeft", "ArrowRight"][place] : place + 1,
        onclick: (event) => { if (!this.looked) { this.clicked(event); this.picked(place); } } },
      make("span", { class: "frame" }, image), make("span", { class: "mark", "aria-hidden": "true" }));
    }

    // The answers so far, in every place that shows them. The focus stays on what it is on.
    redraw() {
      const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset.id : undefined;
      this.asks.replaceChildren(...this.questions.map((question, at) => this.row(question, at)));
      const now = this.questions[this.active];
      for (const node of this.stage.node.querySelectorAll(".shot")) {
        const place = Number(node.dataset.place);
        const rank = rankOf(now.groups, place);
        const pair = this.set.mode === "pair";
        const chosen = rank !== null || now.value === (pair ? ["left", "right"][place] : place);
        const words = pair ? this.texts[this.side(["left", "right"][place])] : String(place + 1);
        node.querySelector("img").alt = this.named(place);
        node.querySelector(".mark").replaceChildren(...(pair ? [cap(SIGNS[["left", "right"][place]])] : []), words,
          rank === null ? "" : make("span", { class: "rank" }, fill(this.texts.place, { n: rank })));
        node.classList.toggle("chosen", chosen);
        if (rank !== null || this.set.mode !== "rank") node.setAttribute("aria-pressed", String(chosen));
        else node.removeAttribute("aria-pressed");
      }
      if (focused !== undefined) {
        const again = this.asks.querySelector(`[data-id="${focused}"]`);
        if (again) again.focus({ preventScroll: true });
        else this.focus();
      }
      this.able();
    }

    row(question, at) {
      const { mode } = this.set;
      const choice = (value, words, sign, shortcut) => make("button", { type: "button", class: "choice",
        "data-value": value, "data-id": `${at}.${value}`, "aria-pressed": String(question.value === value), "aria-keyshortcuts": shortcut,
        onclick: (event) => { this.clicked(event); this.choose(at, value); } }, cap(sign), words);
      const arrow = (value) => Object.keys(ARROWS).find((name) => ARROWS[name] === value);
      const skip = choice("skip", this.texts.skip, this.many ? "\u2423" : this.texts.key_space, "Space");
      let answers = [];
      if (mode === "pair") {
        answers = this.choices.filter((value) => value !== "skip" && (this.many || (value !== "left" && value !== "right")))
          .map((value) => choice(value, this.texts[this.side(value)], SIGNS[value], arrow(value)));
      } else if (mode === "rank") {
        answers = [this.order(question, at)];
      } else if (this.many) {
        answers = this.set.images.map((_, place) => choice(place, String(place + 1), null, String(place + 1)));
        answers.forEach((button, place) => { button.firstChild.remove(); button.setAttribute("aria-label", this.named(place)); });
      }
      const title = make("span", { class: "title", id: `ask-${at}` }, question.text);
      const node = make("div", { class: "ask", role: "group", "aria-labelledby": `ask-${at}` }, title,
        make("div", { class: "answers" }, ...answers, mode !== "pair" || this.choices.includes("skip") ? skip : null));
      if (this.many && at === this.active) node.classList.add("active");
      const turn = () => { if (this.many && this.active !== at) { this.active = at; this.redraw(); } };
      title.addEventListener("click", turn);
      return node;
    }

    // The pictures of a ranking: those that have a place, with what stands between them, and the others.
    order(question, at) {
      const { groups } = question;
      const chip = (place, rank) => {
        const words = rank === null ? "unplaced" : "placed";
        const node = make("button", { type: "button", class: `chip ${words}`, "data-id": `${at}.chip${place}`, "data-place": place,
          "aria-label": `${this.named(place)}, ${fill(this.texts[words], { n: rank })}`,
          onclick: (event) => { if (!this.looked) { this.clicked(event); this.place(at, place); } },
          onpointerdown: (event) => { this.looked = false; if (event.button === 0) this.grab(event, node, place, at); } },
        this.thumbnail(place), make("span", { "aria-hidden": "true" }, String(place + 1)));
        return node;
      };
      const between = (tied, number, from, before, after) => make("button", { type: "button", class: "between", "data-id": `${at}.${before}-`,
        "aria-pressed": String(tied), "aria-label": fill(this.texts.tie_of, { one: before + 1, other: after + 1 }),
        onclick: (event) => { this.clicked(event); this.bind(at, number, from); } }, tied ? "=" : ">");
      const placed = groups.flatMap((group, number) => group.flatMap((place, from) => {
        const before = from > 0 ? group[from - 1] : number > 0 ? groups[number - 1].at(-1) : null;
        const link = before === null ? [] : [between(from > 0, from > 0 ? number : number - 1, from, before, place)];
        return [...link, chip(place, rankOf(groups, place))];
      }));
      const left = this.set.images.map((_, place) => place).filter((place) => rankOf(groups, place) === null);
      const next = left.length === 0 ? null : make("span", { class: "slot", "aria-hidden": "true" }, question.tie ? "=" : groups.length ? ">" : this.texts.first);
      return make("div", { class: "order", "data-at": at }, ...placed, next, ...left.map((place) => chip(place, null)));
    }

    thumbnail(place) {
      const image = this.record.images[place];
      const node = make("canvas", { width: 80, height: 80, "aria-hidden": "true" });
      const size = Math.min(image.naturalWidth, image.naturalHeight);
      if (size > 0) {
        node.getContext("2d").drawImage(image, (image.naturalWidth - size) / 2, (image.naturalHeight - size) / 2, size, size, 0, 0, 80, 80);
      }
      return node;
    }

    // What a voter says

    complete(question) {
      if (this.set.mode !== "rank") return question.value !== undefined;
      return question.value === "skip" || question.groups.flat().length === this.set.images.length;
    }

    // Changes the answer to a question; `change` gets a copy of it. Pictures that do not load can be skipped.
    put(at, change) {
      const found = { ...this.questions[at], groups: this.questions[at].groups.map((group) => [...group]) };
      change(found);
      const skips = this.state === "loading" && this.record.failed && found.value === "skip";
      if (this.state !== "open" && !skips) return;
      this.steps.push([at, this.questions[at]]);
      this.questions[at] = found;
      const next = this.questions.findIndex((question) => !this.complete(question));
      this.active = this.complete(found) && next >= 0 ? next : at;
      this.redraw();
      if (this.single || (skips && next < 0)) this.submit();
    }

    choose(at, value) {
      this.put(at, (question) => Object.assign(question, { value, groups: [], tie: false }));
    }

    // Puts a picture next in the order, or takes it out.
    place(at, place) {
      this.put(at, (question) => {
        const { groups, tie } = question;
        if (rankOf(groups, place) !== null) question.groups = without(groups, place);
        else if (tie && groups.length > 0) groups.at(-1).push(place);
        else groups.push([place]);
        Object.assign(question, { tie: false, value: undefined });
      });
    }

    // Ties a group and the next one, or parts a group before its picture `from`.
    bind(at, number, from) {
      this.put(at, ({ groups }) => {
        if (from > 0) groups.splice(number, 1, groups[number].slice(0, from), groups[number].slice(from));
        else groups.splice(number, 2, [...groups[number], ...groups[number + 1]]);
      });
    }

    // The equals sign: the next picture, or where all have a place the last one, is tied with the one before, or not.
    equals(at) {
      const { groups } = this.questions[at];
      if (groups.length === 0) return;
      if (groups.flat().length < this.set.images.length) this.put(at, (question) => { question.tie = !question.tie; });
      else if (groups.at(-1).length > 1) this.bind(at, groups.length - 1, groups.at(-1).length - 1);
      else if (groups.length > 1) this.bind(at, groups.length - 2, 0);
    }

    picked(place) {
      if (this.set.mode === "pair") this.choose(this.active, ["left", "right"][place]);
      else if (this.set.mode === "best") this.choose(this.active, place);
      else this.place(this.active, place);
    }

    async submit() {
      const loaded = this.state === "open";
      if (!loaded && !(this.state === "loading" && this.record.failed)) return;
      if (!this.questions.every((question) => this.complete(question))) return;
      this.tick();
      const places = this.set.images.map((_, place) => place);
      const answers = Object.fromEntries(this.questions.map(({ name, value, groups }) =>
        [name, this.set.mode === "rank" && value !== "skip" ? places.map((place) => rankOf(groups, place)) : value]));
      const measures = { milliseconds: loaded ? Math.round(this.spent) : 0, loaded: Math.round(this.record.took || 0),
        device: device(), input: this.input };
      this.become("waiting");
      const slow = setTimeout(() => this.say(this.texts.saving), 1000);
      try {
        await this.source.answer(this.set, answers, measures);
      } catch (error) {
        this.say(error.message);
        this.become(loaded ? "open" : "loading");
        return;
      } finally {
        clearTimeout(slow);
      }
      await this.start();
    }

    // Takes back the last step in this set, or the answer to the set before.
    async undo() {
      if (this.state === "waiting") return;
      if (this.steps.length > 0) {
        const [at, old] = this.steps.pop();
        this.questions[at] = old;
        this.active = at;
        this.redraw();
        return;
      }
      const { state } = this;
      this.become("waiting");
      try {
        const found = await this.source.undo();
        if (found !== null) { await this.show(found); return; }
        this.say(this.texts.undo_none);
      } catch (error) {
        this.say(error.message);
      }
      this.become(state === "loading" && this.record.took !== null ? "open" : state);
    }

    // Keys, mouse, touch

    listen() {
      this.heard = new AbortController();
      const { signal } = this.heard;
      let timer = 0;
      const release = () => {
        clearTimeout(timer);
        if (this.looks) this.zoom(false);
        this.looks = false;
      };
      (this.options.keys || document).addEventListener("keydown", (event) => this.pressed(event), { signal });
      document.addEventListener("visibilitychange", () => this.tick(), { signal });
      for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, release, { signal });
      this.root.addEventListener("pointerdown", (event) => {
        this.pointer = event.pointerType === "mouse" ? "mouse" : "touch";
        this.looked = false; // whether this press looked closer or dragged, and so is no answer
      }, true);
      const { node } = this.stage;
      node.addEventListener("pointerdown", (event) => {
        const shot = event.target.closest(".shot");
        if (!shot || event.button !== 0 || this.state !== "open") return;
        timer = setTimeout(() => {
          if (this.dragging || this.stage.zoomed || this.state !== "open") return;
          this.looks = this.looked = true;
          this.zoom(true);
          this.stage.point(event);
        }, HOLD);
        if (this.set.mode === "rank" && this.pointer === "mouse") this.grab(event, shot, Number(shot.dataset.place), null);
      });
      node.addEventListener("pointermove", (event) => this.stage.point(event));
      node.addEventListener("touchmove", (event) => { if (this.looks) event.preventDefault(); }, { passive: false });
      node.addEventListener("contextmenu", (event) => { if (this.pointer === "touch") event.preventDefault(); });
    }

    zoom(on) {
      this.stage.zoom(on && this.state === "open");
      this.zooming.setAttribute("aria-pressed", String(this.stage.zoomed));
    }

    clicked(event) {
      this.input = event.detail === 0 ? "key" : this.pointer || "mouse";
    }

    pressed(event) {
      const { target, key } = event;
      if (this.held || event.ctrlKey || event.altKey || event.metaKey || typing(target)) return;
      if ((key === " " || key === "Enter") && target instanceof Element && target.closest("button, a, summary")) return;
      const does = this.meaning(key, event.shiftKey);
      if (!does) return;
      event.preventDefault();
      if (event.repeat && !event.shiftKey) return;
      this.input = "key";
      // From now on the keys are the page's: Enter goes on, and does not press the button that was chosen last.
      if (target instanceof Element && target.closest("button") && !event.shiftKey && !/^(z|Z|Escape)$/.test(key)) this.focus();
      does();
    }

    // What a key does now; null where it is none of ours.
    meaning(key, shift) {
      if (this.stage.zoomed && key === "Escape") return () => this.zoom(false);
      if (this.stage.zoomed && shift && key.startsWith("Arrow")) return () => this.stage.step(key);
      if (key === "Backspace") return () => this.undo();
      if (key === "z" || key === "Z") return () => this.zoom(!this.stage.zoomed);
      if (this.set === null) return key === " " ? () => {} : null;
      if (key === "Enter") return () => this.submit();
      const { mode, images } = this.set;
      if (key === " " || (mode === "pair" && key in ARROWS)) {
        return this.choices.includes(ARROWS[key]) ? () => this.choose(this.active, ARROWS[key]) : () => {};
      }
      const place = /^[1-9]$/.test(key) ? Number(key) - 1 : images.length;
      const placed = () => rankOf(this.questions[this.active].groups, place) !== null;
      if (mode !== "pair" && place < images.length) return () => { if (!placed()) this.picked(place); };
      return mode === "rank" && key === "=" ? () => this.equals(this.active) : null;
    }

    // A drag of a picture into the order of a question. at: the question whose order it comes from, or null.
    grab(event, node, place, at) {
      const heard = new AbortController();
      let ghost = null;
      const move = (now) => {
        if (now.pointerId !== event.pointerId) return;
        if (now.buttons === 0) { end(now); return; } // let go where nobody heard of it
        if (!ghost && Math.hypot(now.clientX - event.clientX, now.clientY - event.clientY) < MOVED) return;
        if (!ghost && (this.looks || this.state !== "open")) return;
        if (!ghost) {
          ghost = make("span", { class: "ghost", "aria-hidden": "true" }, this.thumbnail(place));
          this.root.append(ghost);
          this.dragging = this.looked = true;
          node.setPointerCapture(now.pointerId);
        }
        ghost.style.left = `${now.clientX}px`;
        ghost.style.top = `${now.clientY}px`;
        this.under(now, place, at);
      };
      const end = (now) => {
        if (now.pointerId !== event.pointerId) return;
        heard.abort();
        if (!ghost) return;
        ghost.remove();
        this.dragging = false;
        this.input = this.pointer;
        const found = now.type === "pointerup" ? this.under(now, place, at) : null;
        if (found) this.drop(place, found);
        else this.redraw();
      };
      // On the whole page: a fast pointer has left the picture before its first move is heard.
      document.addEventListener("pointermove", move, { signal: heard.signal });
      for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, end, { signal: heard.signal });
    }

    // Where a dragged picture would fall, which is marked: beside the nearest picture of the order, or onto it: a tie.
    under({ clientX: x, clientY: y }, place, at) {
      for (const node of this.root.querySelectorAll(".drop")) node.classList.remove("drop", "before", "after", "tie");
      const order = document.elementFromPoint(x, y)?.closest(".order");
      if (!order || !this.root.contains(order)) return at === null ? null : { at, how: "out" };
      const row = Number(order.dataset.at);
      const far = (box) => Math.hypot((box.left + box.right) / 2 - x, 2 * ((box.top + box.bottom) / 2 - y));
      const [near] = [...order.querySelectorAll(".placed")].filter((chip) => Number(chip.dataset.place) !== place)
        .map((chip) => [far(chip.getBoundingClientRect()), chip]).sort((one, other) => one[0] - other[0]);
      if (!near) { order.classList.add("drop"); return { at: row, how: "first" }; }
      const box = near[1].getBoundingClientRect();
      const part = (x - box.left) / box.width;
      const how = part < 0.25 ? "before" : part > 0.75 ? "after" : "tie";
      near[1].classList.add("drop", how);
      return { at: row, how, near: Number(near[1].dataset.place) };
    }

    drop(place, { at, how, near }) {
      this.put(at, (question) => {
        const groups = without(question.groups, place);
        const number = Math.max(0, groups.findIndex((group) => group.includes(near)));
        if (how === "tie") groups[number].push(place);
        else if (how !== "out") groups.splice(how === "after" ? number + 1 : number, 0, [place]);
        Object.assign(question, { groups, value: undefined, tie: false });
      });
    }
  }

  return { Ballot, make, fill };
})();
