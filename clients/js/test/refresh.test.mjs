/** Refreshes of a connected `Phone`, over hours, with a clock that the test moves. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Phone } from "../dist/index.js";
import { ManualClock } from "./clock.mjs";
import { FakeSdk, ORIGIN, login, offline, ok, problem, service } from "./simulation.mjs";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const token = (name, more = {}) => ok(login({ token: name, refresh: 3600, expires: 4800, ...more }));

let phone;

beforeEach(() => (FakeSdk.made = []));
afterEach(() => phone.close());

async function connected(...answers) {
  const dialtone = service(...answers);
  const clock = new ManualClock();
  const options = { url: ORIGIN, accessToken: () => "user-token", deviceId: "tab-1", fetch: dialtone.fetch };
  phone = new Phone({ ...options, createClient: (sdkOptions) => new FakeSdk(sdkOptions) }, clock);
  const errors = [];
  phone.on("error", ({ code }) => errors.push([code, clock.elapsed()]));
  await phone.connect();
  return { dialtone, clock, errors, sdk: FakeSdk.made[0] };
}

test("a due refresh logs in on the open socket and keeps the client", async () => {
  const { clock, sdk } = await connected(token("token-1"), token("token-2"));

  await clock.advance(HOUR);

  assert.deepEqual(sdk.logins, ["token-2"]);
  assert.equal(FakeSdk.made.length, 1);
  assert.equal(phone.state, "ready");
});

test("a phone that stays open is refreshed whenever its login is due", async () => {
  const { clock, sdk } = await connected(token("token-1"));

  await clock.advance(24 * HOUR);

  assert.equal(sdk.logins.length, 24);
});

test("a denied refresh keeps the connection and is retried with growing pauses until it succeeds", async () => {
  const denied = problem(403, "access_denied");
  const { clock, errors, sdk } = await connected(token("token-1"), denied, denied, denied, token("token-2"));

  await clock.advance(2 * HOUR - 1);

  assert.deepEqual(errors.map(([code]) => code), ["access_denied", "access_denied", "access_denied"]);
  const [first, second, third] = errors.map(([, at]) => at);
  assert.equal(first, HOUR);
  assert.ok(second - first >= 22_500 && second - first <= 37_500, `${second - first}`);
  assert.ok(third - second >= 45_000 && third - second <= 75_000, `${third - second}`);
  assert.deepEqual(sdk.logins, ["token-2"]);
  assert.equal(phone.state, "ready");
  assert.ok(!sdk.isGone);
});

test("a refresh that is denied for a day is retried every few minutes, and the connection stays open", async () => {
  const { clock, errors, sdk } = await connected(token("token-1"), problem(403, "access_denied"));

  await clock.advance(24 * HOUR);

  assert.ok(errors.length > 200 && errors.length < 400, String(errors.length));
  assert.equal(phone.state, "ready");
  assert.ok(!sdk.isGone);
});

test("refresh() rejects if it is denied, and a later refresh is scheduled", async () => {
  const { clock, sdk } = await connected(token("token-1"), problem(403, "access_denied"), token("token-2"));

  await assert.rejects(phone.refresh(), { code: "access_denied" });
  await clock.advance(MINUTE);

  assert.deepEqual(sdk.logins, ["token-2"]);
});

test("a session that ends while the phone is connected ends the phone when the connection is lost", async () => {
  const { clock, errors, sdk } = await connected(token("token-1"), problem(401, "invalid_token"));
  await clock.advance(2 * HOUR);
  assert.equal(phone.state, "ready");
  assert.deepEqual(new Set(errors.map(([code]) => code)), new Set(["not_signed_in"]));

  sdk.connected = false;
  sdk.fire("telnyx.socket.close");
  await clock.advance(0);

  assert.equal(phone.state, "failed");
  assert.ok(sdk.isGone);
});

test("a connection that the SDK does not restore in a minute is replaced when the network is back", async () => {
  const { clock, errors, sdk } = await connected(token("token-1"), offline(), offline(), token("token-1"));
  sdk.connected = false;
  sdk.fire("telnyx.socket.close");

  await clock.advance(MINUTE - 1);
  assert.deepEqual([phone.state, errors], ["reconnecting", []]);
  await clock.advance(MINUTE);

  assert.deepEqual(errors.map(([code]) => code), ["line_down", "network", "network"]);
  assert.equal(FakeSdk.made.length, 2);
  assert.equal(phone.state, "ready");
});

test("close() ends the retries of a denied refresh", async () => {
  const { dialtone, clock } = await connected(token("token-1"), problem(403, "access_denied"));
  await clock.advance(HOUR);

  await phone.close();
  await clock.advance(HOUR);

  assert.equal(dialtone.requests.length, 2);
});

test("an expired login of a page that slept is replaced before the phone reconnects", async () => {
  const { clock, sdk } = await connected(token("token-1"), token("token-2"));
  clock.setWall(8 * HOUR);
  sdk.connected = false;

  sdk.fire("telnyx.socket.close");
  await clock.advance(0);

  assert.deepEqual(FakeSdk.made.map(({ options }) => options.login_token), ["token-1", "token-2"]);
  assert.equal(phone.state, "ready");
});

test("a new credential of a connected phone is used when Telnyx accepts it", async () => {
  const { clock, sdk } = await connected(token("token-1"), problem(410, "credential_ended"), token("token-2", { usable: 5 }));
  const refreshing = phone.refresh();

  await clock.advance(4_999);
  assert.deepEqual(sdk.logins, []);
  await clock.advance(1);
  await refreshing;

  assert.deepEqual(sdk.logins, ["token-2"]);
});

const REPLACED = {
  id: "1c9f8e5d6b7a48c2a3b4c5d6e7f80913",
  sip_username: "gencredB",
  sip_uri: "sip:gencredB@sip.telnyx.com",
};

const called = ({ requests }) => requests.map(({ method, url }) => `${method} ${url.slice(ORIGIN.length)}`);

test("a due refresh that replaced the SIP identity logs in with it on the open socket when Telnyx accepts it", async () => {
  const { dialtone, clock, sdk } = await connected(token("token-1"), token("token-2", { ...REPLACED, usable: 5 }));

  await clock.advance(HOUR + 4_999);
  assert.deepEqual(sdk.logins, []);
  await clock.advance(1);

  assert.deepEqual(sdk.logins, ["token-2"]);
  assert.deepEqual([phone.sipUri, phone.state], [REPLACED.sip_uri, "ready"]);
  assert.equal(FakeSdk.made.length, 1);
  assert.deepEqual(called(dialtone), ["POST /v1/telephony-credentials", "POST /v1/telephony-credentials"]);
});

test("a page learns its new SIP identity from the login event", async () => {
  const { clock } = await connected(token("token-1"), token("token-2", REPLACED));
  const uris = [];
  phone.on("login", ({ sip_uri }) => uris.push(sip_uri));

  await clock.advance(HOUR);

  assert.deepEqual(uris, [REPLACED.sip_uri]);
});

test("a phone connects with its new SIP identity if Telnyx rejects it on the open socket", async () => {
  const { dialtone, clock, sdk } = await connected(token("token-1"), token("token-2", REPLACED));
  sdk.accepts = false;

  await clock.advance(HOUR);

  assert.ok(sdk.isGone);
  assert.deepEqual(FakeSdk.made.map(({ options }) => options.login_token), ["token-1", "token-2"]);
  assert.deepEqual([phone.sipUri, phone.state], [REPLACED.sip_uri, "ready"]);
  assert.equal(dialtone.requests.length, 2);
});

test("requests after a replacement name the new credential", async () => {
  const deleted = () => new Response(null, { status: 204 });
  const replaced = (name) => token(name, REPLACED);
  const answers = [problem(410, "credential_ended"), replaced("token-2"), replaced("token-3"), deleted];
  const { dialtone } = await connected(token("token-1"), ...answers);

  await phone.refresh();
  await phone.refresh();
  await phone.logout();

  assert.deepEqual(called(dialtone).slice(1), [
    "POST /v1/telephony-credentials/0b8f9d4e5a6c47d1a2b3c4d5e6f70812/token",
    "POST /v1/telephony-credentials",
    `POST /v1/telephony-credentials/${REPLACED.id}/token`,
    `DELETE /v1/telephony-credentials/${REPLACED.id}`,
  ]);
});

test("an outage during the replacement keeps the connection until the new SIP identity is available", async () => {
  const outage = problem(503, "telnyx_unavailable", { "Retry-After": "20" });
  const { clock, errors, sdk } = await connected(token("token-1"), outage, outage, token("token-2", REPLACED));

  await clock.advance(HOUR + 20_000);
  assert.deepEqual([sdk.logins, phone.state, phone.sipUri], [[], "ready", "sip:gencredA@sip.telnyx.com"]);
  await clock.advance(MINUTE);

  assert.deepEqual(errors.map(([code]) => code), ["telnyx_unavailable", "telnyx_unavailable"]);
  assert.deepEqual(sdk.logins, ["token-2"]);
  assert.equal(phone.sipUri, REPLACED.sip_uri);
});

test("logout() can be repeated after the deletion failed", async () => {
  const deleted = () => new Response(null, { status: 204 });
  const { dialtone } = await connected(token("token-1"), problem(403, "access_denied"), deleted);

  await assert.rejects(phone.logout(), { code: "access_denied" });
  assert.equal(phone.state, "idle");
  await phone.logout();

  assert.equal(phone.state, "logged_out");
  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE", "DELETE"]);
});
