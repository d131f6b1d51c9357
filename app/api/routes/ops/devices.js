/** The panel of users and devices: search, facts of each device, and actions that log out devices or reject tokens. */

import { request } from "./api.js";
import { $, button, confirmed, element, facts, notify, setText, time, update, view } from "./page.js";
import { issuers } from "./status.js";

const PAGE_SIZE = 100;
const LIVE = ["active", "pending"];
const NAMES = { subject: "user", sip_username: "SIP username", device_id: "device ID" };

let shown = "";

/** By lease id: whether the device was registered with Telnyx, and when that was checked. */
const presence = new Map();

/** Start the search of the form. */
export function search() {
  const text = $("query").value.trim();
  view.set({ by: $("by").value === "subject" ? "" : $("by").value, find: text });
  shown = "";
  presence.clear();
  return refreshSearch();
}

/** Fill in the form from the view. */
export function restoreSearch() {
  $("by").value = view.get("by") in NAMES ? view.get("by") : "subject";
  $("query").value = view.get("find");
}

/** Search again for the user or device of the view. Unchanged results are left as they are. */
export async function refreshSearch() {
  const text = view.get("find");
  const by = view.get("by") in NAMES ? view.get("by") : "subject";
  if (!text) {
    update($("found"), []);
    setText($("search-result"), "");
    return;
  }
  const value = by === "sip_username" ? sipUsername(text) : text;
  const query = `${by}=${encodeURIComponent(value)}`;
  const pages = await Promise.all(LIVE.map((state) => request(`/leases?state=${state}&limit=${PAGE_SIZE}&${query}`)));
  const leases = pages.flatMap((page) => page.data);
  const isCut = pages.some((page) => page.next_cursor);
  const ended = leases.length ? [] : (await request(`/leases?limit=5&${query}`)).data;
  const state = JSON.stringify([query, leases, ended, view.get("zone")]);
  if (state === shown) return;
  shown = state;
  showFound(by, value, leases, ended, isCut);
}

/** The user part of a SIP URI: `sip:user@host` or `user`. */
const sipUsername = (text) => text.replace(/^sips?:/i, "").split("@")[0];

function showFound(by, value, leases, ended, isCut) {
  const count = `${leases.length} live ${leases.length === 1 ? "device" : "devices"}`;
  const more = isCut ? ` There are more than ${PAGE_SIZE}: search for a user.` : "";
  setText($("search-result"), leases.length ? `${count} for the ${NAMES[by]} ${value}.${more}` : `No live device for the ${NAMES[by]} ${value}.`);
  const users = new Map();
  for (const lease of [...leases, ...ended]) {
    const key = JSON.stringify([lease.issuer, lease.subject]);
    users.set(key, [...(users.get(key) ?? []), lease]);
  }
  if (!users.size && by === "subject") for (const issuer of issuers) users.set(JSON.stringify([issuer, value]), []);
  update($("found"), [...users].map(([key, found]) => userBlock(...JSON.parse(key), found)));
}

function userBlock(issuer, subject, leases) {
  const live = leases.filter((lease) => LIVE.includes(lease.state));
  const ended = leases.filter((lease) => !LIVE.includes(lease.state));
  const block = element("div", "", "user");
  const title = element("h3", subject);
  title.append(element("small", issuer));
  const acts = element("p", "", "actions");
  const key = `${issuer} ${subject}`;
  acts.append(
    button("Show in audit", () => document.dispatchEvent(new CustomEvent("audit-of", { detail: subject })), { key: `audit ${key}`, label: `Show in audit the events of ${subject}` }),
    button("Reject tokens", () => rejectTokens(issuer, subject), { key: `reject ${key}`, label: `Reject tokens of ${subject}`, className: "danger" }),
  );
  if (live.length) {
    acts.append(button("Check presence", () => checkPresence(issuer, subject), { key: `presence ${key}`, label: `Check presence of ${subject}` }));
    acts.append(button("Log out user", () => logOutUser(issuer, subject), { key: `user ${key}`, label: `Log out user ${subject} on all devices`, className: "danger" }));
  }
  const list = element("ul", "", "devices");
  list.append(...live.map(deviceBlock), ...ended.map(endedBlock));
  block.append(title, acts, list);
  if (!leases.length) list.replaceWith(element("p", "The ledger has no lease of this user.", "hint"));
  return block;
}

const nameOf = (lease) => (lease.label ? `${lease.label} (${lease.device_id})` : lease.device_id);

function deviceBlock(lease) {
  const block = element("li");
  const list = element("dl", "", "facts");
  list.append(...facts([
    ["state", `${lease.state}, ${lease.platform}`],
    ["SIP address", lease.sip_uri ?? "none yet"],
    ["last used", lease.last_used_at ? time(lease.last_used_at) : "not known"],
    ...presenceFact(lease),
    ["created", time(lease.created_at)],
    ["expires", time(lease.expires_at)],
  ]));
  const act = button("Log out device", () => logOutDevice(lease), { key: lease.id, label: `Log out device ${nameOf(lease)} of ${lease.subject}`, className: "danger" });
  block.append(element("h4", nameOf(lease)), list, act);
  return block;
}

function presenceFact(lease) {
  if (!presence.has(lease.id)) return [];
  const { online, at } = presence.get(lease.id);
  const value = element("span", online === null ? "not known, checked " : online ? "yes, checked " : "no, checked ");
  value.append(time(at));
  return [["online", value]];
}

async function checkPresence(issuer, subject) {
  const user = `issuer=${encodeURIComponent(issuer)}&subject=${encodeURIComponent(subject)}`;
  const { data } = await request(`/leases?state=active&limit=${PAGE_SIZE}&${user}&presence=true`);
  const at = new Date().toISOString();
  for (const { id, online } of data) presence.set(id, { online, at });
  shown = "";
  await refreshSearch();
}

function endedBlock(lease) {
  const block = element("li", "", "ended");
  block.append(element("h4", nameOf(lease)), element("p", `${lease.state}, ${lease.platform}`), element("p", "since "));
  block.lastChild.append(time(lease.updated_at));
  return block;
}

async function logOutDevice(lease) {
  const answer = await confirmed({
    title: `Log out device ${nameOf(lease)}`,
    effects: [
      `${lease.subject} is logged out on this device. Dialtone deletes its credential at Telnyx.`,
      "Other devices of the user stay logged in.",
    ],
    option: "Also reject the user's tokens issued before now. Otherwise the device can log in again.",
    isChecked: true,
    yes: "Log out device",
  });
  if (answer === null) return;
  // Set before the logout. Otherwise the device could log in between the two.
  if (answer) await request("/not-before", "PUT", { issuer: lease.issuer, subject: lease.subject });
  const { httpStatus } = await request(`/leases/${lease.id}`, "DELETE").catch((error) => {
    if (answer) error.message = `Dialtone rejects earlier tokens of ${lease.subject}, but the device is not logged out. ${error.message}`;
    throw error;
  });
  const pending = httpStatus === 202 ? " Telnyx has not confirmed it yet. Dialtone retries." : "";
  const tokens = answer ? ` Dialtone rejects earlier tokens of ${lease.subject}.` : "";
  notify(`Dialtone logged out device ${nameOf(lease)} of ${lease.subject}.${tokens}${pending}`);
  await changed();
}

async function logOutUser(issuer, subject) {
  const answer = await confirmed({
    title: `Log out ${subject} on all devices`,
    effects: [`${subject} (${issuer}) is logged out on all devices. Dialtone deletes the credentials at Telnyx.`, "Calls in progress on these devices may end."],
    option: "Also reject the user's tokens issued before now. Otherwise the devices can log in again.",
    yes: "Log out user",
  });
  if (answer === null) return;
  const { revoked, complete } = await request("/revocations", "POST", { issuer, subject, refuse_tokens: answer });
  const tokens = answer ? " Dialtone rejects the user's earlier tokens." : "";
  const rest = complete ? "" : " More devices remain: repeat the action.";
  notify(`Dialtone logged out ${subject} on ${revoked} ${revoked === 1 ? "device" : "devices"}.${tokens}${rest}`);
  await changed();
}

async function rejectTokens(issuer, subject) {
  const answer = await confirmed({
    title: `Reject tokens of ${subject}`,
    effects: [
      `Dialtone rejects every token of ${subject} (${issuer}) that was issued before now, on all replicas. This cannot be undone.`,
      "The user must sign in again.",
      "Devices stay logged in until their login expires or you log them out.",
    ],
    yes: "Reject tokens",
  });
  if (answer === null) return;
  await request("/not-before", "PUT", { issuer, subject });
  notify(`Dialtone rejects earlier tokens of ${subject}.`);
  await changed();
}

const changed = async () => {
  document.dispatchEvent(new CustomEvent("changed"));
  await refreshSearch();
};
