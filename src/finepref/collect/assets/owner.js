"use strict";
// The owner's page: fetches what changes, and does what buttons say. Text reaches the page as text only.
(() => {
  const EVERY = 2000; // milliseconds
  const live = document.getElementById("live");
  const told = document.getElementById("told");
  let last = ""; // what is shown
  let silent = false; // whether the server did not answer last time

  const tell = (words) => {
    if (told.textContent !== words) told.textContent = words;
    told.hidden = words === "";
    return undefined;
  };

  // Selectors that find what has the focus in the new page: that button, or one beside it where it is another now.
  function focused() {
    const node = document.activeElement;
    if (!live.contains(node)) return [];
    const named = (names) => names.filter((name) => node.hasAttribute(name))
      .map((name) => `[${name}="${CSS.escape(node.getAttribute(name))}"]`).join("");
    const beside = named(["data-do", "data-id", "aria-labelledby"]);
    return [`${beside}${named(["data-state"])}:not([disabled])`, `${beside}:not([disabled])`];
  }

  async function refresh() {
    let answer;
    let shown;
    try {
      answer = await fetch("/admin-live", { cache: "no-store" });
      shown = await answer.text();
    } catch { answer = null; }
    if (answer === null || !answer.ok) {
      silent = true;
      return tell(answer === null ? "The server does not answer. This page tries again by itself."
        : "The server does not know you any more. Open the link that finepref collect printed.");
    }
    if (silent) { silent = false; tell(""); }
    if (shown === last) return undefined;
    last = shown;
    const [again, table] = [focused(), document.activeElement.scrollLeft];
    live.innerHTML = shown;
    const node = again.map((selector) => live.querySelector(selector)).find((found) => found !== null);
    if (node) { node.focus({ preventScroll: true }); node.scrollLeft = table; }
    return undefined;
  }

  async function post(path, body) {
    let answer;
    let said;
    try {
      answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      said = await answer.json();
    } catch { return tell("The server does not answer: nothing was done. Try again."); }
    if (!answer.ok) return tell([said.error, said.remedy].filter((words) => words).join("; "));
    tell(said.link ? `The personal link, shown once: ${location.origin}${said.link}` : "Done.");
    await refresh();
    return true;
  }

  async function check() {
    tell("The answers are looked at; with many of them it takes a minute.");
    try {
      const answer = await fetch("/admin-checks", { cache: "no-store" });
      if (!answer.ok) return tell("The checks could not be made; load the page again.");
      document.getElementById("checked").innerHTML = await answer.text();
      return tell("");
    } catch { return tell("The server does not answer."); }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const { do: what, state, id } = button.dataset;
    if (what === "state") post("/api/owner/state", { state });
    const renewed = "The voter's old link will open nothing any more. Make a new one?";
    if (what === "voter" && state === "renew" && !confirm(renewed)) return;
    if (what === "voter") post(`/api/owner/voters/${id}`, { state });
    if (what === "check") check();
    const name = document.getElementById("name");
    if (what === "invite") post("/api/owner/voters", { name: name.value }).then((done) => { if (done) name.value = ""; });
  });
  setInterval(refresh, EVERY);
})();
