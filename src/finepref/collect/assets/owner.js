"use strict";
// The owner's page: fetches what changes, and does what buttons say. Text reaches the page as text only.
(() => {
  const EVERY = 2000; // milliseconds
  const live = document.getElementById("live");
  const told = document.getElementById("told");

  const tell = (words) => { told.textContent = words; told.hidden = words === ""; };

  async function refresh() {
    try {
      const answer = await fetch("/admin-live", { cache: "no-store" });
      if (answer.ok && !live.contains(document.activeElement)) live.innerHTML = await answer.text();
    } catch { tell("The server does not answer."); }
  }

  async function post(path, body) {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const said = await answer.json();
    if (!answer.ok) return tell(`${said.error} ${said.remedy || ""}`);
    tell(said.link ? `The personal link, shown once: ${location.origin}${said.link}` : "Done.");
    document.activeElement.blur();
    return refresh();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const { do: what, state, id } = button.dataset;
    if (what === "state") post("/api/owner/state", { state });
    if (what === "voter") post(`/api/owner/voters/${id}`, { state });
    if (what === "invite") post("/api/owner/voters", { name: document.getElementById("name").value });
  });
  setInterval(refresh, EVERY);
})();
