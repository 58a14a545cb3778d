"use strict";
// The vote server as the source of a ballot. An answer lies in the browser until the server has acknowledged it.
(() => {
  const AHEAD = 2; // sets that are asked for: the one that is looked at, and one that loads meanwhile
  const PATIENCE = 5000; // milliseconds after which the page goes on with an answer that only the browser has
  const LIMIT = 20000; // milliseconds that a request may take
  const FIRST = 1000; // milliseconds until a first try again; the pauses double
  const LONGEST = 60000;
  const POLL = 10000; // milliseconds between looks at a study that is paused
  const STORED = "finepref.answer.";

  const at = (name) => document.getElementById(name);
  const texts = JSON.parse(at("texts").textContent);
  const sleep = (time) => new Promise((resolve) => { setTimeout(resolve, time); });
  const named = (set, revision) => `${STORED}${set}.${revision}`;

  // {status, data, wait}: status 0 where no answer came; wait: milliseconds that the server asks for.
  async function ask(path, body) {
    const request = body === undefined ? {} : { method: "POST", keepalive: true, body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" } };
    const given = new AbortController();
    const timer = setTimeout(() => given.abort(), LIMIT);
    try {
      const answer = await fetch(path, { ...request, cache: "no-store", signal: given.signal });
      const data = await answer.json().catch(() => ({}));
      return { status: answer.status, data, wait: 1000 * (Number(answer.headers.get("Retry-After")) || 0) };
    } catch {
      return { status: 0, data: {}, wait: 0 };
    } finally {
      clearTimeout(timer);
    }
  }
  const passes = (status) => status === 0 || status === 408 || status === 429 || status >= 500;

  // Answers that the server has not acknowledged: one entry of the storage each, so that two tabs never write the same.
  class Outbox {
    constructor() {
      this.memory = new Map(); // where there is no storage
    }

    all() {
      const found = [...this.memory.values()];
      try {
        for (const name of Object.keys(localStorage)) if (name.startsWith(STORED)) found.push(JSON.parse(localStorage.getItem(name)));
      } catch { /* no storage */ }
      return found.filter((entry) => entry !== null).sort((one, other) => one.at - other.at);
    }

    // What is to be sent; not what the server did not know, which may be another voter's of this browser.
    waiting() {
      return this.all().filter((entry) => !entry.parked);
    }

    has(set, revision) {
      return this.all().some((entry) => entry.set === set && entry.revision === revision);
    }

    // Whether it outlasts the page.
    put(entry) {
      const name = named(entry.set, entry.revision);
      try {
        localStorage.setItem(name, JSON.stringify(entry));
        return true;
      } catch {
        this.memory.set(name, entry);
        return false;
      }
    }

    drop(entry) {
      const name = named(entry.set, entry.revision);
      this.memory.delete(name);
      try { localStorage.removeItem(name); } catch { /* no storage */ }
    }
  }

  class Server {
    // changed(): called when something that the page shows may be another.
    constructor(changed) {
      Object.assign(this, { changed, outbox: new Outbox(), sets: [], seen: new Map(), given: new Set(), state: "open", note: "" });
      Object.assign(this, { counts: { done: 0, of: null }, down: false, late: false, stuck: false, blocked: null, failures: 0 });
      Object.assign(this, { flushing: null, fetching: null, timer: 0, mended: [], last: 0, heard: 0, there: new Set() });
      this.order = []; // ids of the sets that this page answered, the last one last
      for (const entry of this.outbox.all()) if (entry.parked) this.outbox.put({ ...entry, parked: false });
    }

    // The source of the ballot: next, answer, undo, progress.

    async next() {
      for (;;) {
        if (this.state !== "open") return this.found(null);
        const set = this.sets.find((one) => !this.over(one));
        if (set) return this.found(set);
        const fresh = await this.fetch();
        if (fresh && (this.sets.some((one) => !this.over(one)) || this.state !== "open")) continue;
        if (fresh && this.outbox.waiting().length === 0) return this.found(null);
        this.stuck = true;
        if (!this.down && this.blocked === null) this.trouble(0);
        this.changed();
        await new Promise((resolve) => { this.mended.push(resolve); });
      }
    }

    async answer(set, answers, measures) {
      const { id, revision } = set;
      this.last = Math.max(Date.now(), this.last + 1);
      this.note = "";
      this.given.add(named(id, revision));
      this.order = [...this.order.filter((one) => one !== id), id];
      const entry = { set: id, revision, answers, ...measures, at: this.last, tried: false };
      const lasts = this.outbox.has(id, revision) || this.outbox.put(entry);
      if (!lasts) while (this.outbox.has(id, revision)) { if (!await this.flush()) await sleep(FIRST); }
      else if (!this.down) await Promise.race([this.flush(), sleep(PATIENCE)]);
      this.late = this.outbox.waiting().length > 0;
      this.changed();
    }

    async undo() {
      const [last] = this.outbox.waiting().slice(-1);
      if (last && !last.tried && this.seen.has(last.set)) {
        this.outbox.drop(last);
        this.given.delete(named(last.set, last.revision));
        this.order = this.order.filter((one) => one !== last.set);
        return this.found({ ...this.seen.get(last.set), answers: last.answers });
      }
      if (last && !await this.flush()) throw new Error(texts.undo_offline);
      const [set] = this.order.slice(-1); // so that a request that is sent again takes back no other answer
      const { status, data } = await ask("/api/undo", set === undefined ? {} : { set });
      if (passes(status)) throw new Error(texts.undo_offline);
      this.order = status === 200 ? this.order.slice(0, -1) : [];
      if (status !== 200) return null;
      this.heard += 1;
      this.sets = [data.set, ...this.sets.filter((one) => one.id !== data.set.id)];
      this.counts = data.progress || { ...this.counts, done: this.counts.done - 1 };
      this.state = data.state || "open";
      return this.found(data.set);
    }

    async progress() {
      return { done: this.done(), of: this.counts.of };
    }

    // Answers that were kept, and those that wait; an answer may be both, as long as its acknowledgement is on the way.
    done() {
      return this.counts.done + this.outbox.waiting().filter(({ set, revision }) => !this.there.has(named(set, revision))).length;
    }

    found(set) {
      this.stuck = false;
      if (set) this.seen.set(set.id, set);
      if (this.seen.size > 20) this.seen.delete(this.seen.keys().next().value);
      this.ended = set === null;
      this.changed();
      return set;
    }

    over(set) {
      return this.given.has(named(set.id, set.revision)) || this.outbox.has(set.id, set.revision);
    }

    told(data) {
      this.counts = data.progress || this.counts;
      this.state = data.state || this.state;
      this.changed();
    }

    // Asks for the sets that are out, and new ones. Whether they came.
    fetch() {
      this.fetching = this.fetching || this.ahead().finally(() => { this.fetching = null; });
      return this.fetching;
    }

    async ahead() {
      const { heard } = this;
      const more = this.outbox.waiting().length;
      const { status, data, wait } = await ask(`/api/sets?count=${AHEAD + more}`);
      if (status !== 200) {
        this.failed(status, data, wait);
        return false;
      }
      if (this.heard !== heard) return this.ahead(); // an answer came meanwhile, which this does not know of
      this.sets = data.sets;
      const out = new Set(data.sets.map(({ id, revision }) => named(id, revision)));
      const names = this.outbox.waiting().map(({ set, revision }) => named(set, revision));
      this.there = new Set(data.state === "open" || data.state === "done" ? names.filter((name) => !out.has(name)) : []);
      if (names.length === 0) this.calm(); // what waits is still to be tried again
      this.told(data);
      return true;
    }

    // Sends what waits, the oldest first. Whether nothing waits any more.
    flush() {
      this.flushing = this.flushing || this.send().finally(() => { this.flushing = null; });
      return this.flushing;
    }

    async send() {
      for (;;) {
        const [entry] = this.outbox.waiting();
        if (!entry) break;
        this.outbox.put({ ...entry, tried: true });
        const { at: _, tried, parked, ...body } = entry;
        const { status, data, wait } = await ask("/api/answers", body);
        if (status === 200) this.outbox.drop(entry);
        else if (status === 409 || status === 404) { if (!await this.clash(entry, status, data)) return false; }
        else if (status === 401 || status === 403 || passes(status)) { this.failed(status, data, wait); return false; }
        else this.refuse(entry, data);
        if (status === 200) { this.heard += 1; this.told(data); }
      }
      this.late = false;
      this.calm();
      return true;
    }

    // The set is answered already, or the study rests, or the set is not this voter's. Whether to go on with the others.
    async clash(entry, status, refused) {
      if (status === 404) {
        this.outbox.put({ ...entry, parked: true });
        return true;
      }
      const { status: heard, data, wait } = await ask("/api/state");
      if (heard !== 200) {
        this.failed(heard, data, wait);
        return false;
      }
      this.told(data);
      if (data.state === "paused") return false;
      if (data.state === "closed") {
        this.refuse(entry, refused);
      } else {
        this.outbox.drop(entry);
        this.order = this.order.filter((one) => one !== entry.set);
        this.sets = [];
        this.note = texts.elsewhere;
      }
      return true;
    }

    refuse(entry, { error, remedy }) {
      this.outbox.drop(entry);
      this.order = this.order.filter((one) => one !== entry.set);
      this.given.delete(named(entry.set, entry.revision));
      this.note = ballot.fill(texts.refused, { error: [error, remedy].filter((words) => words).join("; ") });
      this.changed();
    }

    failed(status, data, wait) {
      if (passes(status)) this.trouble(wait);
      else this.blocked = { status, ...data };
      this.changed();
    }

    trouble(wait) {
      this.down = true;
      const pause = Math.min(LONGEST, FIRST * 2 ** this.failures) * (0.5 + Math.random());
      this.failures += 1;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.mend(), Math.max(wait, pause));
    }

    calm() {
      Object.assign(this, { down: false, failures: 0 });
      clearTimeout(this.timer);
      this.changed();
    }

    // Tries again: sends what waits, then asks for sets.
    async mend() {
      clearTimeout(this.timer);
      if (!await this.flush() || !await this.fetch()) {
        if (!this.down && this.blocked === null && this.stuck) this.trouble(POLL);
        return;
      }
      for (const resolve of this.mended.splice(0)) resolve();
    }
  }

  // The page: the ballot, or a screen in its place, and a note above.
  let resting = false;
  let polling = 0;
  const server = new Server(() => draw());
  const vote = new ballot.Ballot(at("ballot"), server, texts, { count: at("count"), shown: () => preload() });

  async function preload() {
    draw();
    if (!server.down) await server.fetch();
    for (const set of server.sets.filter((one) => !server.over(one)).slice(0, AHEAD)) vote.load(set);
  }

  function screen() {
    const act = (words, does) => ({ words, does });
    if (server.blocked !== null) {
      const { status, error, remedy } = server.blocked;
      const said = [error, remedy].filter((words) => words).join("; ");
      return { title: texts.link_title, text: status === 401 ? texts.link_text : said || texts.link_text,
        act: act(texts.again, () => location.reload()) };
    }
    if (resting) return { title: texts.rest_title, text: texts.rest_text, act: act(texts.go_on, () => rest(false)) };
    if (server.stuck) return { title: texts.offline_title, text: texts.offline_text, act: act(texts.again, () => server.mend()) };
    if (!server.ended) return null;
    const state = server.state === "open" ? "done" : server.state;
    const change = state === "done" && server.counts.done > 0 ? act(texts.undo_last, () => vote.undo()) : null;
    return { title: texts[`${state}_title`], text: texts[`${state}_text`], act: change };
  }

  function draw() {
    const found = screen();
    const hidden = found !== null;
    const turned = at("ballot").hidden !== hidden || at("headline").textContent !== (found ? found.title : "");
    at("ballot").hidden = hidden;
    at("screen").hidden = !hidden;
    at("pause").hidden = hidden;
    at("headline").textContent = found ? found.title : "";
    at("words").textContent = found ? found.text : "";
    at("act").hidden = !(found && found.act);
    at("act").textContent = found && found.act ? found.act.words : "";
    at("act").onclick = found && found.act ? found.act.does : null;
    if (turned && hidden) (found.act ? at("act") : at("headline")).focus();
    if (turned && !hidden) vote.focus();
    notes();
    vote.refresh();
    const { of } = server.counts;
    at("bar").hidden = of === null;
    if (of !== null) Object.assign(at("bar"), { max: Math.max(of, 1), value: Math.min(server.done(), of) });
    clearTimeout(polling);
    if (server.ended && server.state === "paused") polling = setTimeout(look, POLL * (0.5 + Math.random()));
  }

  function notes() {
    const count = server.outbox.waiting().length;
    const kept = count === 0 || !(server.down || server.late) ? ""
      : count === 1 ? texts.waiting_one : ballot.fill(texts.waiting_many, { n: count });
    const lost = server.down && !server.stuck ? texts.offline_note : "";
    const words = [lost, kept, server.note].filter((one) => one).join(" ");
    if (at("note").textContent !== words) at("note").textContent = words;
    at("note").hidden = words === "";
  }

  // A study that is paused: whether it goes on.
  async function look() {
    const { status, data } = await ask("/api/state");
    if (status === 200) server.told(data);
    else draw();
    if (status !== 200 || data.state === "paused") return;
    await server.flush();
    if (server.ended) await vote.start();
  }

  function rest(on) {
    resting = on;
    if (on) vote.hold(true);
    draw();
    if (!on) vote.hold(false);
  }

  const awake = () => { if (server.down || server.outbox.waiting().length > 0) server.mend(); };
  at("pause").addEventListener("click", () => rest(true));
  window.addEventListener("online", awake);
  window.addEventListener("pageshow", (event) => { if (event.persisted) awake(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) awake(); });
  server.flush().then(() => vote.start());
  draw();
})();
