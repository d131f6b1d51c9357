/** The softphone: signs a demo user in, connects the Telnyx SDK through `dialtone-client`, and handles the buttons. */

import { Phone } from "./dialtone-client/index.js";
import { TelnyxRTC } from "./sdk.js";
import { $, copy, element, showError, showExchange, showLife, showState } from "./view.js";

const config = await (await fetch("config.json")).json();
const SHOWN_HEADERS = ["content-type", "cache-control", "retry-after", "www-authenticate", "x-request-id"];

let user = null;
let token = null;
let phone = null;
let login = null;
let skewMs = 0;
const calls = new Map();
const people = new Map();

// -- sign-in --------------------------------------------------------------------------------------------------------

/** A token of the demo identity provider. A real page gets it from its sign-in library. */
async function accessToken() {
  if (user === null) return null;
  if (token && token.until > Date.now()) return token.text;
  if (user === "guest") return guestGrant();
  const answer = await fetch(`${config.identity}/token`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user }),
  });
  const { access_token, expires_in } = await answer.json();
  token = { text: access_token, until: Date.now() + (expires_in - 60) * 1000 };
  return access_token;
}

/** A grant from the page's own backend, which keeps the guest's session in a cookie. */
async function guestGrant() {
  const answer = await fetch("grant", { method: "POST" });
  const grant = await answer.json();
  if (!answer.ok) throw new Error(grant.title);
  token = { text: grant.token, until: Date.parse(grant.expires_at) - 30_000 };
  return token.text;
}

/** Repeats a request once with another grant if the guest's grant is rejected, for example after a revocation. */
async function fetchWithGrant(url, request) {
  const answer = await watchedFetch(url, request);
  if (answer.status !== 401 || user !== "guest") return answer;
  token = null;
  const another = await accessToken().catch(() => null);
  if (another === null) return answer;
  return watchedFetch(url, { ...request, headers: { ...request.headers, Authorization: `Bearer ${another}` } });
}

/** `fetch` that also shows the request and the response on the page. */
async function watchedFetch(url, request) {
  const began = performance.now();
  const seen = { method: request.method, url, requestBody: request.body, status: 0, headers: [], responseBody: "" };
  try {
    const answer = await fetch(url, request);
    seen.status = answer.status;
    seen.headers = SHOWN_HEADERS.filter((name) => answer.headers.has(name)).map((name) => `${name}: ${answer.headers.get(name)}`);
    seen.responseBody = await answer.clone().text();
    return answer;
  } finally {
    seen.milliseconds = Math.round(performance.now() - began);
    showExchange(seen);
  }
}

// -- the phone ------------------------------------------------------------------------------------------------------

function makePhone() {
  const made = new Phone({
    url: config.service,
    accessToken,
    fetch: fetchWithGrant,
    label: `${user}'s browser tab`,
    // The other tab is on this machine, so no STUN or TURN server is needed.
    createClient: (options) => Object.assign(new TelnyxRTC({ ...options, iceServers: [] }), { remoteElement: "remote" }),
  });
  made.on("state", (state) => {
    showState(state);
    if (state === "ready") showError(null);
    $("dial").hidden = state !== "ready";
    $("acts").hidden = login === null || !["ready", "reconnecting", "connecting", "failed"].includes(state);
    if (state === "logged_out" || state === "idle") signedOut();
  });
  made.on("login", (next) => {
    login = next;
    skewMs = Date.parse(next.server_time) - Date.now();
    $("sip-uri").textContent = next.sip_uri;
    $("copy").hidden = false;
    showLife(login, skewMs);
  });
  made.on("error", showError);
  made.on("call", showCall);
  return made;
}

$("user").append(...config.users.map((name) => element("option", { value: name }, name)));
if (config.notice) {
  $("sign-in").hidden = true;
  showError({ message: config.notice, code: "other_issuer" });
}
$("sign-in-button").disabled = Boolean(config.notice);
$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (user !== null) return;
  user = $("user").value;
  $("user").disabled = $("sign-in-button").disabled = true;
  showError(null);
  phone = makePhone();
  await phone.connect().catch(() => ($("sign-in-button").disabled = $("user").disabled = false, (user = token = null)));
});

function signedOut() {
  user = token = login = null;
  calls.clear();
  $("calls").replaceChildren();
  $("others").replaceChildren();
  $("sip-uri").textContent = "";
  $("copy").hidden = true;
  $("user").disabled = $("sign-in-button").disabled = false;
  showLife(null, 0);
}

$("copy").addEventListener("click", async () => {
  $("copy").textContent = (await copy($("sip-uri"))) ? "Copied" : "Selected: press Ctrl+C";
  setTimeout(() => ($("copy").textContent = "Copy"), 3000);
});
$("refresh").addEventListener("click", () => phone.refresh().catch(() => undefined));
$("logout").addEventListener("click", () => phone.logout().catch(showError));
$("revoke").addEventListener("click", async () => {
  // Deletes the credential without the phone, as an administrator would. The phone reconnects with a new SIP identity.
  const headers = { Authorization: `Bearer ${await accessToken()}` };
  await watchedFetch(`${config.service}/v1/telephony-credentials/${login.id}`, { method: "DELETE", headers }).catch(() => undefined);
});

// -- calls ----------------------------------------------------------------------------------------------------------

$("dial").addEventListener("submit", (event) => {
  event.preventDefault();
  dial($("to").value);
});

function dial(destination) {
  phone.client.newCall({ destinationNumber: destination, audio: true, video: false });
}

function showCall(call) {
  if (["destroy", "purge"].includes(call.state)) {
    calls.get(call.id)?.remove();
    calls.delete(call.id);
    return;
  }
  if (!calls.has(call.id)) {
    calls.set(call.id, element("div", { className: "call" }));
    $("calls").append(calls.get(call.id));
  }
  const isInbound = call.direction === "inbound";
  const peer = isInbound ? call.options.remoteCallerNumber || call.options.callerNumber : call.options.destinationNumber;
  const name = people.get(peer?.replace(/^sip:|@.*$/g, "")) ?? peer ?? "unknown";
  const cause = call.state === "hangup" && call.cause ? ` (${call.cause})` : "";
  const box = calls.get(call.id);
  box.dataset.state = call.state;
  box.replaceChildren(
    element("p", {}, element("strong", {}, `${isInbound ? "From" : "To"} `), name, ` · ${call.state}${cause}`),
    element("div", {}, ...buttons(call, isInbound)),
  );
}

function buttons(call, isInbound) {
  const again = () => showCall(call);
  if (isInbound && call.state === "ringing") {
    return [button("Answer", () => call.answer(), "answer"), button("Decline", () => call.hangup(), "hang-up")];
  }
  if (["active", "held"].includes(call.state)) {
    const isMuted = call.isAudioMuted;
    const isHeld = call.state === "held";
    return [
      toggle("Mute", isMuted, () => (isMuted ? call.unmuteAudio() : call.muteAudio(), again())),
      toggle("Hold", isHeld, () => (isHeld ? call.unhold() : call.hold())),
      button("Hang up", () => call.hangup(), "hang-up"),
    ];
  }
  return call.state === "hangup" ? [] : [button("Hang up", () => call.hangup(), "hang-up")];
}

const button = (text, onclick, className = "") => element("button", { type: "button", onclick, className }, text);

function toggle(text, isOn, onclick) {
  const made = button(text, onclick);
  made.setAttribute("aria-pressed", String(Boolean(isOn)));
  return made;
}

// -- devices online -------------------------------------------------------------------------------------------------

setInterval(async () => {
  showLife(login, skewMs);
  if (phone?.state !== "ready") return;
  const here = { user, sip_uri: phone.sipUri };
  const others = await fetch("directory", { method: "POST", body: JSON.stringify(here) })
    .then((answer) => answer.json())
    .catch(() => []);
  for (const { user, sip_uri } of others) people.set(sip_uri.replace(/^sip:|@.*$/g, ""), user);
  $("people").replaceChildren(...others.map(({ user, sip_uri }) => element("option", { value: sip_uri }, user)));
  const shown = others.map(({ sip_uri }) => sip_uri).join();
  if ($("others").dataset.shown === shown) return;
  $("others").dataset.shown = shown;
  $("others").replaceChildren(
    ...others.map(({ user, sip_uri }) => element("li", {}, button(`Call ${user} …${sip_uri.split("@")[0].slice(-4)}`, () => dial(sip_uri)))),
  );
}, 2000);

showState("idle");
showLife(null, 0);
globalThis.softphone = { get phone() { return phone; } };
