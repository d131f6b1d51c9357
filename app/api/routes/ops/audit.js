/** The audit panel: filters, pages of events, and updates that keep the rows and the position. */

import { request, serverNow } from "./api.js";
import { $, element, instantOf, plain, setText, time, view, zoneName } from "./page.js";

const PAGE_SIZE = 50;
const ACTIONS = [
  ...["issued", "reused", "renewed", "denied", "revoked", "swept", "push_changed"],
  ...["grant_minted", "grant_used", "grant_revoked", "admin_action"],
];
const OUTCOMES = ["done", "unconfirmed", "denied", "failed"];
const FIELDS = ["range", "since", "until", "action", "outcome", "user", "request"];
const COLUMNS = ["Time", "Action", "Outcome", "User", "Device", "Reason", "Actor", "Address", "Request"];

let cursor = null;
let isPaged = false;

/** Fill in the filters from the view, and the choices of the lists. */
export function restoreAudit() {
  for (const [id, names] of [["action", ACTIONS], ["outcome", OUTCOMES]]) {
    if ($(id).length === 1) $(id).append(...names.map((name) => new Option(name.replace("_", " "), name)));
  }
  for (const field of FIELDS) $(field).value = view.get(field);
  for (const field of ["range", "action", "outcome"]) if ($(field).selectedIndex < 0) $(field).value = "";
  showCustomRange();
  $("audit-panel").querySelector("thead tr").replaceChildren(...COLUMNS.map((name) =>
    element("th", name === "Time" ? `Time (${zoneName()})` : name, "", { role: "columnheader", scope: "col" })));
}

export function showCustomRange() {
  for (const label of document.querySelectorAll("#filters .custom")) label.hidden = $("range").value !== "custom";
}

/** Write the filters of the form to the view. */
export function applyFilters() {
  const chosen = Object.fromEntries(FIELDS.map((field) => [field, $(field).value.trim()]));
  if (chosen.range !== "custom") chosen.since = chosen.until = "";
  view.set(chosen);
  showNewest();
}

export function clearFilters() {
  view.set(Object.fromEntries(FIELDS.map((field) => [field, ""])));
  restoreAudit();
  showNewest();
}

/** Only the events of this user. */
export function filterByUser(subject) {
  view.set({ ...Object.fromEntries(FIELDS.map((field) => [field, ""])), user: subject });
  restoreAudit();
  showNewest();
}

/** Discard the pages, so that the next refresh shows the newest events. */
export function showNewest() {
  isPaged = false;
  cursor = null;
  $("audit").replaceChildren();
}

/** Show the newest events. Does nothing while older pages are shown, so that the rows keep their position. */
export async function refreshAudit() {
  if (isPaged) return;
  const page = await request(`/audit?${query()}`);
  if (isPaged) return;
  cursor = page.next_cursor;
  showEvents(page.data, false);
}

export async function showOlder() {
  const page = await request(`/audit?${query()}&cursor=${encodeURIComponent(cursor)}`);
  isPaged = true;
  cursor = page.next_cursor;
  showEvents(page.data, true);
}

function query() {
  const wanted = new URLSearchParams({ limit: PAGE_SIZE });
  const range = view.get("range");
  if (range === "custom") {
    for (const name of ["since", "until"]) {
      const instant = view.get(name) && instantOf(view.get(name));
      if (instant) wanted.set(name, instant);
    }
  } else if (Number(range) > 0) {
    wanted.set("since", new Date(serverNow() - Number(range) * 60_000).toISOString());
  }
  for (const [field, parameter] of [["action", "action"], ["outcome", "outcome"], ["user", "subject"], ["request", "request_id"]]) {
    if (view.get(field)) wanted.set(parameter, view.get(field));
  }
  return wanted;
}

function showEvents(events, isMore) {
  const body = $("audit");
  const known = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const rows = events.map((event) => known.get(event.id) ?? rowOf(event));
  if (isMore) {
    body.append(...rows);
    rows[0]?.focus();
  } else if (rows.length !== body.rows.length || rows.some((row, index) => row !== body.rows[index])) {
    body.replaceChildren(...rows);
  }
  const isFiltered = FIELDS.some((field) => view.get(field));
  const none = isFiltered ? "No event matches these filters." : "There are no events yet.";
  const paused = isPaged ? " The list is not updated while you read older events." : "";
  const plural = body.rows.length === 1 ? "event" : "events";
  setText($("audit-result"), body.rows.length ? `${body.rows.length} ${plural} shown, newest first.${paused}` : none);
  $("older").hidden = cursor === null;
  $("newest").hidden = !isPaged;
}

function rowOf(event) {
  const row = element("tr", "", "", { role: "row", tabindex: -1 });
  row.dataset.id = event.id;
  const actor = event.actor_subject === event.subject ? "" : (event.actor_subject ?? "");
  const details = Object.entries(event.details).map(([name, value]) => `${name} ${value}`).join(", ");
  const reason = [event.reason, details && `(${details})`].filter(Boolean).join(" ");
  const cells = [time(event.at), event.action.replace("_", " "), event.outcome, event.subject, event.device_id, reason, actor, event.client_address, event.request_id];
  cells.forEach((content, index) => {
    const cell = element("td", "", "", { role: "cell", "data-label": COLUMNS[index] });
    cell.append(content instanceof Node ? content : plain(content ?? ""));
    if (!cell.textContent) cell.classList.add("empty");
    row.append(cell);
  });
  if (event.outcome === "failed" || event.outcome === "denied") row.cells[2].classList.add("bad");
  return row;
}
