/** `dialtone-client/react` on a server: no window at import, and no request at render. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

import { createElement as h } from "react";
import { renderToString } from "react-dom/server";

import * as modules from "../dist/react.js";
import { ORIGIN, ok, service } from "./simulation.mjs";

for (const [format, { PhoneProvider, useCall, useDevices, usePhone }] of [
  ["ES modules", modules],
  ["CommonJS", createRequire(import.meta.url)("../dist/cjs/react.js")],
]) {
  test(`a server renders the idle phone without a window (${format})`, () => {
    const dialtone = service(ok());
    const Status = () => h("p", null, usePhone().state, useCall().calls.length, useDevices().devices ?? "no devices");
    const createClient = () => assert.fail("a client on a server");
    const props = { url: ORIGIN, user: "alice", accessToken: () => "a", createClient, fetch: dialtone.fetch };

    const html = renderToString(h(PhoneProvider, props, h(Status)));

    assert.ok(!("window" in globalThis) && !("document" in globalThis));
    assert.equal(html, "<p>idle<!-- -->0<!-- -->no devices</p>");
    assert.equal(dialtone.requests.length, 0);
  });
}
