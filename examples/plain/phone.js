/** A softphone: signs a user in, shows the address of this tab, calls another address, and answers calls. */

import { TelnyxRTC } from "@telnyx/webrtc";
import { Phone } from "dialtone-client";

const DIALTONE = "http://127.0.0.1:8010";  // the addresses of `make dev`
const IDENTITY = "http://127.0.0.1:8012";

const $ = (id) => document.getElementById(id);
const showError = (error) => ($("error").textContent = error?.message ?? "");
const calls = new Map();
let user;
let currentCall;

/** An access token of the signed-in user. Your sign-in library has such a function. */
async function accessToken() {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(`${IDENTITY}/token`, { method: "POST", headers, body: JSON.stringify({ user }) });
  return (await answer.json()).access_token;
}

/** The SDK's client of a new connection. The calls of the previous one have ended. */
function createClient(options) {
  calls.clear();
  showCall();
  const client = new TelnyxRTC(options);
  client.remoteElement = "remote";
  // dialtone-client reports failed logins. Only the SDK knows whether the microphone is available (42001 to 42003).
  client.on("telnyx.error", ({ error }) => Math.floor(error?.code / 1000) === 42 && showError(error));
  return client;
}

const phone = new Phone({ url: DIALTONE, accessToken, createClient });

phone.on("state", (state) => {
  $("state").textContent = state;
  $("call").disabled = state !== "ready";
  if (state === "ready") showError();
  if (state === "failed") showUser(undefined);
});
phone.on("login", ({ sip_uri }) => ($("address").textContent = sip_uri));
phone.on("error", showError);
phone.on("call", (call) => {
  if (["destroy", "purge"].includes(call.state)) calls.delete(call.id);
  else calls.set(call.id, call);
  showCall();
});

/** Show the newest call. */
function showCall() {
  currentCall = [...calls.values()].at(-1);
  $("current-call").hidden = currentCall === undefined;
  $("call-state").textContent = currentCall?.state ?? "";
  $("answer").hidden = currentCall?.state !== "ringing" || currentCall.direction !== "inbound";
}

function showUser(name) {
  user = name;
  $("sign-in").hidden = user !== undefined;
  $("phone").hidden = user === undefined;
}

$("sign-in").onsubmit = (event) => {
  event.preventDefault();
  showError();
  showUser($("user").value);
  phone.connect().catch(() => undefined);  // the event `error` has reported it
};
$("dial").onsubmit = (event) => {
  event.preventDefault();
  showError();
  phone.client.newCall({ destinationNumber: $("to").value, audio: true });
};
$("answer").onclick = () => currentCall.answer();
$("hang-up").onclick = () => currentCall.hangup();
$("sign-out").onclick = async () => {
  try {
    await phone.logout();  // deletes the credential, so it needs the user's token
    showUser(undefined);
  } catch (error) {
    showError(error);
  }
};
