/** A page with React in StrictMode: a provider, hooks, and a check after each test. */

import assert from "node:assert/strict";
import { afterEach, beforeEach } from "node:test";

import { JSDOM } from "jsdom";

import { checkRejections } from "./rejections.mjs";
import { FakeSdk, ORIGIN, loadPage, webLocks } from "./simulation.mjs";

const { window } = new JSDOM("<!doctype html><body></body>", { url: "https://app.example.com", pretendToBeVisual: true });
Object.assign(globalThis, { window, document: window.document });
loadPage(); // React reads `navigator` when it is imported

const { createElement: h } = await import("react");
const { cleanup, configure, renderHook, waitFor } = await import("@testing-library/react");
const { PhoneProvider, usePhone } = await import("../dist/react.js");
configure({ reactStrictMode: true, asyncUtilTimeout: 30_000 });

export const deleted = () => new Response(null, { status: 204 });
export const live = () => FakeSdk.made.filter(({ connected }) => connected);

beforeEach(() => loadPage({ locks: webLocks() }));
afterEach(cleanup);
checkRejections();
afterEach(() => assert.deepEqual(live(), []));

export function propsOf(dialtone, more = {}) {
  return {
    url: ORIGIN,
    user: "alice",
    accessToken: () => "token-of-alice",
    createClient: (options) => new FakeSdk(options),
    fetch: dialtone.fetch,
    ...more,
  };
}

/** Render a hook below a provider. `set` changes the provider's properties. */
export function rendered(hook, dialtone, more) {
  let props = propsOf(dialtone, more);
  const wrapper = ({ children }) => h(PhoneProvider, props, children);
  const { result, rerender, unmount } = renderHook(hook, { wrapper });
  const set = (changed) => {
    props = { ...props, ...changed };
    rerender();
  };
  return { result, set, unmount };
}

export async function readyPhone(dialtone, more) {
  const made = rendered(usePhone, dialtone, more);
  await waitFor(() => assert.equal(made.result.current.state, "ready"));
  return made;
}
