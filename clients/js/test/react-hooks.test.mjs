/** `useCall` and `useDevices` in React's StrictMode, with a simulated page, service and SDK. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { deleted, rendered } from "./react-page.mjs";
import { FakeSdk, ok, problem, service } from "./simulation.mjs";

const { waitFor } = await import("@testing-library/react");
const { useCall, useDevices, usePhone } = await import("../dist/react.js");

// -- calls ------------------------------------------------------------------------------------------------------------

const callUpdate = (call) => FakeSdk.made[0].fire("telnyx.notification", { type: "callUpdate", call });

test("a call is shown with each of its states until it ends", async () => {
  const { result } = rendered(() => ({ phone: usePhone(), call: useCall() }), service(ok()));
  await waitFor(() => assert.equal(result.current.phone.state, "ready"));
  const call = { id: "call-1", state: "ringing", direction: "inbound" };

  const states = [];
  for (const state of ["ringing", "active", "hangup", "destroy"]) {
    call.state = state; // the SDK changes its call
    callUpdate(call);
    await waitFor(() => assert.equal(result.current.call.state, state === "destroy" ? undefined : state));
    states.push(result.current.call.call?.id);
  }

  assert.deepEqual(states, ["call-1", "call-1", "call-1", undefined]);
});

test("the newest call is shown, and the others remain in the list", async () => {
  const { result } = rendered(() => ({ phone: usePhone(), call: useCall() }), service(ok()));
  await waitFor(() => assert.equal(result.current.phone.state, "ready"));

  callUpdate({ id: "call-1", state: "held" });
  callUpdate({ id: "call-2", state: "ringing" });
  await waitFor(() => assert.equal(result.current.call.call?.id, "call-2"));
  assert.deepEqual(result.current.call.calls.map(({ id }) => id), ["call-1", "call-2"]);
  callUpdate({ id: "call-2", state: "destroy" });

  await waitFor(() => assert.equal(result.current.call.call?.id, "call-1"));
});

test("calls of the previous user are not shown", async () => {
  const { result, set } = rendered(() => ({ phone: usePhone(), call: useCall() }), service(ok()));
  await waitFor(() => assert.equal(result.current.phone.state, "ready"));
  callUpdate({ id: "call-1", state: "active" });
  await waitFor(() => assert.equal(result.current.call.calls.length, 1));

  set({ user: "bob" });

  assert.deepEqual(result.current.call.calls, []);
});

// -- devices ----------------------------------------------------------------------------------------------------------

const page = (ids, next_cursor = null) => ok({ data: ids.map((id) => ({ id, label: `device ${id}` })), next_cursor });

test("the devices of the user are loaded when the phone is ready, from every page", async () => {
  const dialtone = service(ok(), page(["a", "b"], "more"), page(["c"]));
  const { result } = rendered(useDevices, dialtone);

  await waitFor(() => assert.deepEqual(result.current.devices?.map(({ id }) => id), ["a", "b", "c"]));

  assert.match(dialtone.requests[2].url, /\?cursor=more$/);
});

test("a user with too many devices can log one out and connect", async () => {
  const dialtone = service(problem(403, "device_limit_reached"), page(["a", "b"]), deleted, page(["b"]), ok());
  const { result } = rendered(() => ({ phone: usePhone(), list: useDevices() }), dialtone);
  await waitFor(() => assert.equal(result.current.list.devices?.length, 2));
  assert.equal(result.current.phone.error.code, "device_limit_reached");

  await result.current.list.logout("a");
  await waitFor(() => assert.equal(result.current.list.devices.length, 1));
  await result.current.phone.connect();

  await waitFor(() => assert.equal(result.current.phone.state, "ready"));
  assert.match(dialtone.requests[2].url, /telephony-credentials\/a$/);
});

test("devices that cannot be loaded are an error, and reload() tries again", async () => {
  const { result } = rendered(useDevices, service(ok(), problem(503, "ledger_unavailable"), page(["a"])));
  await waitFor(() => assert.equal(result.current.error?.code, "ledger_unavailable"));

  result.current.reload();

  await waitFor(() => assert.equal(result.current.devices?.length, 1));
  assert.equal(result.current.error, undefined);
});

test("a device that cannot be logged out is an error, and the list remains", async () => {
  const { result } = rendered(useDevices, service(ok(), page(["a"]), problem(503, "telnyx_unavailable")));
  await waitFor(() => assert.equal(result.current.devices?.length, 1));

  assert.equal(await result.current.logout("a"), false);

  await waitFor(() => assert.equal(result.current.error?.code, "telnyx_unavailable"));
  assert.equal(result.current.devices.length, 1);
});

test("devices of the previous user are not shown", async () => {
  const { result, set } = rendered(useDevices, service(ok(), page(["a"]), () => new Promise(() => undefined)));
  await waitFor(() => assert.equal(result.current.devices?.length, 1));

  set({ user: "bob" });

  assert.equal(result.current.devices, undefined);
});
