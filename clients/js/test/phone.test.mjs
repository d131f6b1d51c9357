/** `Phone` with a simulated service and a simulated SDK. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { DialtoneError, Phone } from "../dist/index.js";
import { ManualClock } from "./clock.mjs";
import { FakeSdk, ORIGIN, eventually, login, offline, ok, problem, service } from "./simulation.mjs";

let phones = [];

beforeEach(() => {
  FakeSdk.made = [];
  phones = [];
});

afterEach(() => Promise.all(phones.map((phone) => phone.close())));

function phoneAt(dialtone, more = {}, clock) {
  const options = {
    url: `${ORIGIN}/`,
    accessToken: () => "user-token",
    fetch: dialtone.fetch,
    createClient: (options) => new FakeSdk(options),
    deviceId: "tab-1",
    ...more,
  };
  const phone = new Phone(options, clock);
  phone.seen = { states: [], errors: [], calls: [] };
  phone.on("state", (state) => phone.seen.states.push(state));
  phone.on("error", (error) => phone.seen.errors.push(error));
  phone.on("call", (call) => phone.seen.calls.push(call));
  phones.push(phone);
  return phone;
}

test("a login is fetched for the signed-in user and the SDK connects with it", async () => {
  const dialtone = service(ok(login({ rtc: { host: "ws://127.0.0.1:8011" } })));
  const phone = phoneAt(dialtone, { label: "Desk" });

  await phone.connect();
  await eventually(() => phone.state === "ready");

  const [{ method, url, body, request }] = dialtone.requests;
  assert.equal(`${method} ${url}`, `POST ${ORIGIN}/v1/telephony-credentials`);
  assert.deepEqual(body, { device_id: "tab-1", platform: "browser", label: "Desk" });
  assert.equal(request.headers.Authorization, "Bearer user-token");
  assert.deepEqual(FakeSdk.made[0].options, { login_token: "token-1", host: "ws://127.0.0.1:8011" });
  assert.deepEqual(phone.seen.states, ["fetching", "connecting", "ready"]);
  assert.equal(phone.sipUri, "sip:gencredA@sip.telnyx.com");
});

test("the SDK gets the options that the service's policy gives the user", async () => {
  const client_options = { trickleIce: true, forceRelayCandidate: false };
  const call_options = { callerName: "Example Support", callerNumber: "+3224850111" };
  const phone = phoneAt(service(ok(login({ rtc: { region: "eu", client_options, call_options } }))));
  assert.deepEqual(phone.callOptions, {});

  await phone.connect();

  assert.deepEqual(FakeSdk.made[0].options, { ...client_options, login_token: "token-1", region: "eu" });
  assert.deepEqual(phone.callOptions, call_options);
});

test("options of the service's policy do not replace the login", async () => {
  const client_options = { login_token: "other", host: "wss://elsewhere.example.com" };
  const phone = phoneAt(service(ok(login({ rtc: { host: "ws://127.0.0.1:8011", client_options } }))));

  await phone.connect();

  assert.deepEqual(FakeSdk.made[0].options, { login_token: "token-1", host: "ws://127.0.0.1:8011" });
});

test("a refreshed login changes the caller ID of the next call", async () => {
  const withNumber = (callerNumber) => ok(login({ rtc: { call_options: { callerNumber } } }));
  const phone = phoneAt(service(withNumber("+3224850111"), withNumber("+3224850222")));
  await phone.connect();

  await phone.refresh();

  assert.deepEqual(phone.callOptions, { callerNumber: "+3224850222" });
});

test("the phone waits until a new credential works, by the server's clock", async () => {
  const clock = new ManualClock();
  const phone = phoneAt(service(ok(login({ usable: 0.3 }))), {}, clock);
  const connecting = phone.connect();

  await clock.advance(299);
  assert.deepEqual([phone.state, FakeSdk.made.length], ["waiting", 0]);
  await clock.advance(1);
  await connecting;

  assert.equal(phone.state, "ready");
  assert.ok(phone.seen.states.includes("waiting"));
});

test("calls are possible immediately after connect()", async () => {
  const phone = phoneAt(service(ok()));

  await phone.connect();

  assert.equal(phone.state, "ready");
  assert.equal(phone.client, FakeSdk.made[0]);
});

test("ten concurrent callers share one request", async () => {
  const dialtone = service(ok());
  const phone = phoneAt(dialtone);

  await Promise.all(Array.from({ length: 10 }, () => phone.connect()));

  assert.equal(dialtone.requests.length, 1);
  assert.equal(FakeSdk.made.length, 1);
});

test("a refresh without a connection fetches a token before it creates a client", async () => {
  const clock = new ManualClock();
  const dialtone = service(ok(login({ refresh: 0.6, expires: 60 })), ok(login({ token: "token-2" })));
  const phone = phoneAt(dialtone, {}, clock);
  await phone.connect();
  FakeSdk.made[0].connected = false;

  await clock.advance(600);
  await eventually(() => FakeSdk.made.length === 2 && phone.state === "ready");

  assert.equal(FakeSdk.made[1].options.login_token, "token-2");
  assert.ok(FakeSdk.made[0].isGone);
});

test("an open socket that rejects the new token is replaced", async () => {
  const clock = new ManualClock();
  const phone = phoneAt(service(ok(login({ refresh: 0.6, expires: 60 })), ok(login({ token: "token-2" }))), {}, clock);
  await phone.connect();
  FakeSdk.made[0].accepts = false;

  await clock.advance(600);
  await eventually(() => FakeSdk.made.length === 2 && phone.state === "ready");

  assert.equal(FakeSdk.made[1].options.login_token, "token-2");
});

test("a connection lost while its token is valid is restored by the SDK", async () => {
  const dialtone = service(ok());
  const phone = phoneAt(dialtone);
  await phone.connect();
  await eventually(() => phone.state === "ready");

  FakeSdk.made[0].fire("telnyx.socket.close");
  assert.equal(phone.state, "reconnecting");
  FakeSdk.made[0].fire("telnyx.ready");

  assert.equal(phone.state, "ready");
  assert.equal(dialtone.requests.length, 1);
});

test("a connection lost after its token expired is restored with a new token", async () => {
  const phone = phoneAt(service(ok(login({ refresh: 100, expires: 0.05 })), ok(login({ token: "token-2" }))));
  await phone.connect();
  await eventually(() => phone.state === "ready");
  await new Promise((resolve) => setTimeout(resolve, 80));

  FakeSdk.made[0].connected = false;
  FakeSdk.made[0].fire("telnyx.socket.close");
  await eventually(() => FakeSdk.made.length === 2);

  assert.equal(FakeSdk.made[1].options.login_token, "token-2");
});

test("a rejected login is retried with a new token", async () => {
  const dialtone = service(ok(), ok(login({ token: "token-2" })));
  const phone = phoneAt(dialtone);
  await phone.connect();

  FakeSdk.made[0].fire("telnyx.error", { error: { code: 46001 } });
  await eventually(() => FakeSdk.made.length === 2 && phone.state === "ready");

  assert.match(dialtone.requests[1].url, /\/0b8f9d4e5a6c47d1a2b3c4d5e6f70812\/token$/);
  assert.equal(FakeSdk.made[1].options.login_token, "token-2");
});

test("a device whose credential was deleted gets a new one", async () => {
  const dialtone = service(ok(), problem(410, "credential_ended"), ok(login({ token: "token-3" })));
  const phone = phoneAt(dialtone);
  await phone.connect();

  FakeSdk.made[0].fire("telnyx.error", { error: { code: 46001 } });
  await eventually(() => FakeSdk.made.length === 2 && phone.state === "ready");

  assert.deepEqual(
    dialtone.requests.map(({ method, url }) => `${method} ${url.split("/").at(-1)}`),
    ["POST telephony-credentials", "POST token", "POST telephony-credentials"],
  );
});

test("a login that is rejected repeatedly fails with a message", async () => {
  const clock = new ManualClock();
  const createClient = (options) => {
    const sdk = new FakeSdk(options);
    sdk.connect = async () => queueMicrotask(() => sdk.fire("telnyx.error", { error: { code: 46001 } }));
    return sdk;
  };
  const phone = phoneAt(service(ok()), { createClient }, clock);

  const rejected = assert.rejects(phone.connect(), { code: "telnyx_rejected" });
  await clock.advance(20_000);
  await rejected;

  assert.equal(phone.state, "failed");
  assert.equal(phone.seen.errors.at(-1).code, "telnyx_rejected");
  assert.equal(FakeSdk.made.length, 5);
});

for (const [name, first, code] of [
  ["503 with Retry-After", problem(503, "telnyx_unavailable", { "Retry-After": "1" }), "telnyx_unavailable"],
  ["429 of a proxy", () => new Response("slow down", { status: 429, headers: { "Retry-After": "1" } }), "unexpected_answer"],
  ["an HTML 502", () => new Response("<html>", { status: 502 }), "unexpected_answer"],
  ["no network", offline(), "network"],
  ["a success without a login", () => Response.json({ hello: 1 }), "unexpected_answer"],
]) {
  test(`${name}: reported and retried`, async () => {
    const clock = new ManualClock();
    let repeatedAt;
    const second = () => {
      repeatedAt = clock.elapsed();
      return ok()();
    };
    const phone = phoneAt(service(first, second), {}, clock);

    const connecting = phone.connect();
    await clock.advance(60_000);
    await connecting;

    assert.equal(phone.state, "ready");
    assert.deepEqual(phone.seen.errors.map((error) => error.code), [code]);
    assert.ok(phone.seen.errors[0].message.length > 10);
    if (name.includes("Retry-After") || name.startsWith("429")) assert.equal(repeatedAt, 1000);
  });
}

for (const [status, code] of [
  [403, "device_limit_reached"],
  [403, "insufficient_scope"],
  [422, "invalid_request"],
  [502, "telnyx_key_rejected"],
]) {
  test(`${status} ${code}: reported once and not retried`, async () => {
    const dialtone = service(problem(status, code));
    const phone = phoneAt(dialtone);

    await assert.rejects(phone.connect(), (error) => {
      assert.ok(error instanceof DialtoneError);
      assert.equal(error.code, code);
      assert.equal(error.details.requestId, "r-1");
      return true;
    });

    assert.equal(phone.state, "failed");
    assert.equal(dialtone.requests.length, 1);
  });
}

test("without a signed-in user there is no request and one message", async () => {
  const dialtone = service(ok());
  const phone = phoneAt(dialtone, { accessToken: () => null });

  await assert.rejects(phone.connect(), { code: "not_signed_in" });

  assert.equal(dialtone.requests.length, 0);
});

test("logout unregisters and deletes the credential", async () => {
  const dialtone = service(ok(), () => new Response(null, { status: 204 }));
  const phone = phoneAt(dialtone);
  await phone.connect();

  await phone.logout();

  assert.equal(dialtone.requests[1].method, "DELETE");
  assert.ok(FakeSdk.made[0].isGone);
  assert.equal(phone.state, "logged_out");
});

test("a logout during an outage of the service is retried", async () => {
  const dialtone = service(ok(), problem(503, "ledger_unavailable"), () => new Response(null, { status: 202 }));
  const phone = phoneAt(dialtone);
  await phone.connect();

  await phone.logout();

  assert.equal(phone.state, "logged_out");
  assert.deepEqual(dialtone.requests.slice(1).map(({ method }) => method), ["DELETE", "DELETE"]);
});

test("logout revokes a login that is in flight", async () => {
  let answer;
  const held = new Promise((resolve) => (answer = resolve));
  const dialtone = service(() => held, () => new Response(null, { status: 204 }));
  const phone = phoneAt(dialtone);
  const connecting = phone.connect();
  await eventually(() => dialtone.requests.length === 1);

  const leaving = phone.logout();
  answer(Response.json(login()));
  await Promise.all([connecting, leaving]);

  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE"]);
  assert.equal(FakeSdk.made.length, 0);
});

test("an unanswered login is reported and the phone reconnects", async () => {
  let attempts = 0;
  const phone = phoneAt(service(ok()), {
    loginTimeoutMs: 60,
    createClient: (options) => {
      const sdk = new FakeSdk(options);
      attempts += 1;
      if (attempts === 1) sdk.connect = async () => undefined; // the socket never opens
      return sdk;
    },
  });

  await phone.connect();

  assert.equal(phone.state, "ready");
  assert.deepEqual(phone.seen.errors.map((error) => error.code), ["line_down"]);
  assert.equal(FakeSdk.made.length, 2);
});

test("the phone reconnects if the SDK has stopped trying", async () => {
  const phone = phoneAt(service(ok()), { loginTimeoutMs: 40 });
  await phone.connect();
  FakeSdk.made[0].connected = false;

  FakeSdk.made[0].fire("telnyx.socket.close");
  FakeSdk.made[0].fire("telnyx.error", { error: { code: 45003 } });
  await eventually(() => FakeSdk.made.length === 2 && phone.state === "ready");

  assert.ok(FakeSdk.made[0].isGone);
});

test("close() keeps the credential and ends every timer", async () => {
  const dialtone = service(ok(login({ refresh: 0.6, expires: 60 })));
  const phone = phoneAt(dialtone);
  await phone.connect();

  await phone.close();
  await new Promise((resolve) => setTimeout(resolve, 800));

  assert.equal(dialtone.requests.length, 1);
  assert.ok(FakeSdk.made[0].isGone);
});

test("the SDK's warning of an expiring token causes a refresh", async () => {
  const dialtone = service(ok(login({ refresh: -1 })), ok(login({ token: "token-2" })));
  const phone = phoneAt(dialtone);
  await phone.connect();
  await eventually(() => phone.state === "ready");

  FakeSdk.made[0].fire("telnyx.warning", { warning: { code: 34001 } });
  await eventually(() => FakeSdk.made[0].logins.length === 1);
  FakeSdk.made[0].fire("telnyx.warning", { warning: { code: 34001 } }); // ignored for a short-lived token that is not due yet
  await new Promise((resolve) => setTimeout(resolve, 50));

  assert.deepEqual(FakeSdk.made[0].logins, ["token-2"]);
});

test("calls are emitted, and a listener can be removed", async () => {
  const phone = phoneAt(service(ok()));
  await phone.connect();
  let heard = 0;
  const leave = phone.on("call", () => (heard += 1));

  FakeSdk.made[0].fire("telnyx.notification", { type: "callUpdate", call: { id: 1 } });
  leave();
  FakeSdk.made[0].fire("telnyx.notification", { type: "callUpdate", call: { id: 2 } });
  FakeSdk.made[0].fire("telnyx.notification", { type: "userMediaError" });

  assert.equal(heard, 1);
  assert.deepEqual(phone.seen.calls, [{ id: 1 }, { id: 2 }]);
});

test("the login event contains no secret", async () => {
  const phone = phoneAt(service(ok(login({ password: "hunter2" }))));
  let heard;
  phone.on("login", (value) => (heard = value));

  await phone.connect();

  assert.ok(heard.expires_at);
  assert.ok(!JSON.stringify(heard).match(/token-1|hunter2/));
});
