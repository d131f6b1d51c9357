/** `dialtone-client/react` in React's StrictMode: mounts, users and failures. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { deleted, live, propsOf, readyPhone, rendered } from "./react-page.mjs";
import { later } from "./rejections.mjs";
import { FakeSdk, login, ok, problem, service } from "./simulation.mjs";

const { StrictMode, createElement: h, useEffect } = await import("react");
const { renderToString } = await import("react-dom/server");
const { render, renderHook, waitFor } = await import("@testing-library/react");
const { PhoneProvider, useCall, useDevices, usePhone } = await import("../dist/react.js");

const issued = ({ requests }) => requests.filter(({ method }) => method === "POST");
const devicesOf = (dialtone) => new Set(issued(dialtone).map(({ body }) => body.device_id));
const bearerOf = ({ request }) => request.headers.Authorization.replace("Bearer ", "");

function Status() {
  const { state, error } = usePhone();
  return h("p", null, `${state} ${error?.code ?? ""}`);
}

// -- mounts -----------------------------------------------------------------------------------------------------------

test("a component in StrictMode opens one connection with one request", async () => {
  const dialtone = service(ok());

  let mounts = 0;
  const hook = () => {
    useEffect(() => void (mounts += 1), []);
    return usePhone();
  };

  const { result } = rendered(hook, dialtone);
  await waitFor(() => assert.equal(result.current.state, "ready"));

  assert.equal(mounts, 2);
  assert.equal(issued(dialtone).length, 1);
  assert.equal(FakeSdk.made.length, 1);
  assert.equal(result.current.client, FakeSdk.made[0]);
  assert.equal(result.current.sipUri, "sip:gencredA@sip.telnyx.com");
});

test("twenty mounts and unmounts are one device, and one connection is open", async () => {
  const dialtone = service(ok());

  for (let round = 0; round < 20; round += 1) {
    const { unmount } = rendered(usePhone, dialtone);
    await later(round % 4); // before, during and after the request
    unmount();
  }
  await readyPhone(dialtone);

  assert.equal(devicesOf(dialtone).size, 1);
  assert.equal(live().length, 1);
});

test("twenty mounts and unmounts of connected phones are one device", async () => {
  const dialtone = service(ok());

  for (let round = 0; round < 20; round += 1) {
    const { unmount } = await readyPhone(dialtone);
    assert.equal(live().length, 1);
    unmount();
  }

  assert.equal(devicesOf(dialtone).size, 1);
  assert.equal(live().length, 0);
});

test("a provider that replaces another in one render takes over the device", async () => {
  const dialtone = service(ok());
  const page = (key) => h(PhoneProvider, { key, ...propsOf(dialtone) }, h(Status));
  const { container, rerender } = render(page("first"));
  await waitFor(() => assert.equal(container.textContent, "ready "));

  rerender(page("second"));
  await waitFor(() => assert.equal(container.textContent, "ready "));

  assert.equal(devicesOf(dialtone).size, 1);
  assert.equal(live().length, 1);
});

test("a second provider in the page shows an error, and the first keeps its connection", async () => {
  const dialtone = service(ok());
  const provider = (key) => h(PhoneProvider, { key, ...propsOf(dialtone) }, h(Status));

  const { container } = render([provider("first"), provider("second")]);

  await waitFor(() => assert.equal(container.textContent, "ready failed already_open"));
  assert.equal(live().length, 1);
});

test("a provider that failed because of another one connects after the other has unmounted", async () => {
  const dialtone = service(ok());
  const other = rendered(usePhone, dialtone);
  const { result } = rendered(usePhone, dialtone);
  await waitFor(() => assert.equal(result.current.error?.code, "already_open"));
  other.unmount();

  await result.current.connect();

  await waitFor(() => assert.equal(result.current.state, "ready"));
});

test("two providers with device ids of their own are both connected", async () => {
  const dialtone = service(ok());
  const provider = (deviceId) => h(PhoneProvider, { key: deviceId, ...propsOf(dialtone, { deviceId }) }, h(Status));

  const { container } = render([provider("desk"), provider("lobby")]);

  await waitFor(() => assert.equal(container.textContent, "ready ready "));
});

test("an unmount during connect() aborts the request and opens no connection", async () => {
  let signal;
  const fetch = (_, request) => {
    ({ signal } = request);
    return new Promise((__, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const { unmount } = rendered(usePhone, { fetch });
  await waitFor(() => assert.ok(signal));

  unmount();
  await later(20);

  assert.ok(signal.aborted);
  assert.equal(FakeSdk.made.length, 0);
});

test("an unmount while Telnyx has not answered disconnects the client", async () => {
  const createClient = (options) => Object.assign(new FakeSdk(options), { fire: () => undefined });
  const { unmount } = rendered(usePhone, service(ok()), { createClient });
  await waitFor(() => assert.equal(FakeSdk.made.length, 1));

  unmount();
  await later(10);

  assert.ok(FakeSdk.made[0].isGone);
});

test("a hook outside a provider throws an error that names the provider", () => {
  for (const hook of [usePhone, useCall, useDevices]) {
    assert.throws(() => renderToString(h(() => h("p", null, String(hook())))), /needs a <PhoneProvider>/);
  }
});

// -- users ------------------------------------------------------------------------------------------------------------

test("without a user there is no phone, and a sign-in connects it", async () => {
  const dialtone = service(ok());
  const { result, set } = rendered(usePhone, dialtone, { user: null });
  await later(20);
  assert.equal(result.current.state, "idle");
  assert.equal(dialtone.requests.length, 0);

  set({ user: "alice" });

  await waitFor(() => assert.equal(result.current.state, "ready"));
});

test("a user without a phone disconnects it and keeps the credential", async () => {
  const dialtone = service(ok());
  const { result, set } = await readyPhone(dialtone);

  set({ user: undefined });

  await waitFor(() => assert.equal(result.current.state, "idle"));
  assert.deepEqual(live(), []);
  assert.equal(result.current.sipUri, undefined);
  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST"]);
});

test("logout() deletes the credential before the user signs out", async () => {
  const dialtone = service(ok(), deleted);
  const { result, set } = await readyPhone(dialtone);

  await result.current.logout();
  await waitFor(() => assert.equal(result.current.state, "logged_out"));
  set({ user: null });

  assert.equal(dialtone.requests[1].method, "DELETE");
  assert.deepEqual(live(), []);
});

test("a logout() that fails shows its error and can be repeated", async () => {
  const { result } = await readyPhone(service(ok(), problem(403, "access_denied"), deleted));

  assert.equal(await result.current.logout(), false);
  await waitFor(() => assert.equal(result.current.error.code, "access_denied"));
  assert.equal(await result.current.logout(), true);
});

test("a logout() after the end of the session returns true, because the user can only sign out", async () => {
  const { result } = await readyPhone(service(ok(), problem(401, "invalid_token")));

  assert.equal(await result.current.logout(), true);
  await waitFor(() => assert.equal(result.current.error.code, "not_signed_in"));
});

test("the phone of the next user has a new connection and the next user's token", async () => {
  const dialtone = service(ok(), ok(login({ token: "token-2" })));
  const { result, set } = await readyPhone(dialtone);

  set({ user: "bob", accessToken: () => "token-of-bob" });
  await waitFor(() => assert.equal(FakeSdk.made.length, 2));
  await waitFor(() => assert.equal(result.current.state, "ready"));

  assert.deepEqual(dialtone.requests.map(bearerOf), ["token-of-alice", "token-of-bob"]);
  assert.deepEqual(live(), [FakeSdk.made[1]]);
});

test("a logout that is still running uses the token of its user, and does not affect the next user", async () => {
  const dialtone = service(ok(), problem(503, "ledger_unavailable"), ok(login({ token: "token-2" })), deleted);
  const { result, set } = await readyPhone(dialtone);

  const leaving = result.current.logout();
  await waitFor(() => assert.equal(dialtone.requests.length, 2));
  set({ user: "bob", deviceId: "bobs", accessToken: () => "token-of-bob" });
  await waitFor(() => assert.equal(result.current.state, "ready"));
  await leaving;

  const sent = dialtone.requests.map((request) => `${request.method} ${bearerOf(request)}`);
  assert.deepEqual(sent, ["POST token-of-alice", "DELETE token-of-alice", "POST token-of-bob", "DELETE token-of-alice"]);
  assert.equal(result.current.state, "ready");
});

test("functions that differ at every render do not restart the phone, and the latest is used", async () => {
  const dialtone = service(ok(), problem(410, "credential_ended"), ok());
  const { set } = await readyPhone(dialtone);

  for (let round = 0; round < 5; round += 1) set({ accessToken: () => `token-${round}`, label: `tab ${round}` });
  await later(10);
  assert.equal(dialtone.requests.length, 1);
  FakeSdk.made[0].fire("telnyx.error", { error: { code: 46001 } });
  await waitFor(() => assert.equal(dialtone.requests.length, 3));

  assert.equal(bearerOf(dialtone.requests[1]), "token-4");
});

// -- failures ---------------------------------------------------------------------------------------------------------

test("a failure is shown, and connect() tries again", async () => {
  const { result } = rendered(usePhone, service(problem(403, "device_limit_reached"), ok()));
  await waitFor(() => assert.equal(result.current.state, "failed"));
  assert.equal(result.current.error.code, "device_limit_reached");

  await result.current.connect();

  await waitFor(() => assert.equal(result.current.state, "ready"));
  assert.equal(result.current.error, undefined);
});

test("an ended session is shown", async () => {
  const { result } = rendered(usePhone, service(problem(401, "invalid_token")));

  await waitFor(() => assert.equal(result.current.error?.message, "Your session has ended. Please sign in again."));
  assert.equal(result.current.state, "failed");
});

test("invalid options are shown as an error", async () => {
  const { result } = rendered(usePhone, service(ok()), { url: undefined });

  await waitFor(() => assert.equal(result.current.error?.code, "invalid_options"));
  assert.equal(result.current.state, "failed");
});

// -- hydration --------------------------------------------------------------------------------------------------------

test("a page that was rendered by a server is hydrated without a warning", async () => {
  const warnings = [];
  const { error } = console;
  console.error = (...words) => warnings.push(words.join(" "));
  const tree = h(StrictMode, null, h(PhoneProvider, propsOf(service(ok())), h(Status)));
  const container = document.createElement("div");
  container.innerHTML = renderToString(tree);
  const html = container.innerHTML;

  render(tree, { container, hydrate: true });
  await waitFor(() => assert.equal(container.textContent, "ready "));
  console.error = error;

  assert.equal(html, "<p>idle </p>");
  assert.deepEqual(warnings.filter((text) => /hydrat|did not match/i.test(text)), []);
});
