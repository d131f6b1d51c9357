/** Errors: their codes, which of them are retried, and that nothing else escapes. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { DialtoneError, Phone } from "../dist/index.js";
import { ManualClock } from "./clock.mjs";
import { checkRejections, later } from "./rejections.mjs";
import { FakeSdk, ORIGIN, eventually, loadPage, login, ok, problem, service } from "./simulation.mjs";

let phones;

beforeEach(() => {
  phones = [];
  loadPage();
});

afterEach(async () => {
  await Promise.all(phones.map((phone) => phone.close()));
});

checkRejections();

function phoneAt(dialtone, more = {}, clock) {
  const options = {
    url: ORIGIN,
    accessToken: () => "user-token",
    fetch: dialtone.fetch,
    createClient: (options) => new FakeSdk(options),
    ...more,
  };
  const phone = new Phone(options, clock);
  phone.errors = [];
  phone.on("error", (error) => phone.errors.push(error));
  phones.push(phone);
  return phone;
}

const loginRequired = Object.assign(new Error("Login required"), { error: "login_required" });

for (const [name, thrown] of [
  ["Auth0: login_required", loginRequired],
  ["a session that timed out", new Error("Your session timed out")],
  ["a programming error", new TypeError("Cannot read properties of undefined (reading 'token')")],
  ["no error object", "signed out"],
  ["undefined", undefined],
]) {
  test(`accessToken() throws ${name}: not signed in, with the cause`, async () => {
    const phone = phoneAt(service(ok()), {
      accessToken: async () => {
        throw thrown;
      },
    });

    await assert.rejects(phone.connect(), (error) => {
      assert.ok(error instanceof DialtoneError);
      assert.equal(error.code, "not_signed_in");
      assert.equal(error.retryable, false);
      assert.equal(error.cause, thrown);
      return true;
    });
    assert.equal(phone.state, "failed");
  });
}

for (const [name, thrown] of [
  ["a browser", new TypeError("Failed to fetch")],
  ["Safari", new TypeError("Load failed")],
  ["Firefox", new TypeError("NetworkError when attempting to fetch resource.")],
  ["Auth0", Object.assign(new Error("Timeout"), { error: "timeout" })],
  ["MSAL", Object.assign(new Error("Failed"), { errorCode: "no_network_connectivity" })],
  ["Firebase", Object.assign(new Error("Failed"), { code: "auth/network-request-failed" })],
]) {
  test(`accessToken() fails without a network, as reported by ${name}: retried`, async () => {
    let tries = 0;
    const accessToken = () => {
      tries += 1;
      if (tries === 1) throw thrown;
      return "user-token";
    };
    const phone = phoneAt(service(ok()), { accessToken });

    await phone.connect();

    assert.deepEqual(phone.errors.map(({ code, retryable, cause }) => [code, retryable, cause]), [["network", true, thrown]]);
  });
}

for (const token of [null, undefined, "", { accessToken: "a" }, "a b", "línea"]) {
  test(`accessToken() returns ${JSON.stringify(token)}: not signed in`, async () => {
    const dialtone = service(ok());

    await assert.rejects(phoneAt(dialtone, { accessToken: () => token }).connect(), { code: "not_signed_in" });

    assert.equal(dialtone.requests.length, 0);
  });
}

test("a token with a line end is sent without it", async () => {
  const dialtone = service(ok());

  await phoneAt(dialtone, { accessToken: () => "user-token\n" }).connect();

  assert.equal(dialtone.requests[0].request.headers.Authorization, "Bearer user-token");
});

for (const code of ["invalid_token", "missing_token"]) {
  test(`401 ${code}: not signed in, with the problem document`, async () => {
    const dialtone = service(problem(401, code));

    await assert.rejects(phoneAt(dialtone).connect(), (error) => {
      assert.deepEqual([error.code, error.retryable, error.cause.code], ["not_signed_in", false, code]);
      assert.deepEqual(error.details, { status: 401, requestId: "r-1" });
      return true;
    });

    assert.equal(dialtone.requests.length, 1);
  });
}

test("a network error has its cause", async () => {
  const cause = new TypeError("Failed to fetch");
  const failing = () => {
    throw cause;
  };
  const phone = phoneAt(service(failing, ok()));

  await phone.connect();

  assert.equal(phone.errors[0].cause, cause);
});

test("Retry-After may be a date", async () => {
  const clock = new ManualClock();
  const date = new Date(Date.now() + 60_000).toUTCString();
  const phone = phoneAt(service(problem(503, "overloaded", { "Retry-After": date }), ok()), {}, clock);

  const connecting = phone.connect();
  await clock.advance(60_000);
  await connecting;

  const { retryAfterMs } = phone.errors[0].details;
  assert.ok(retryAfterMs > 30_000 && retryAfterMs <= 60_000, String(retryAfterMs));
});

test("a problem code of a newer service is kept, with a message for the user", async () => {
  const phone = phoneAt(service(problem(409, "moon_phase")));

  await assert.rejects(phone.connect(), { code: "moon_phase", message: /could not be set up/ });
});

test("a retryable problem code of a newer service is retried", async () => {
  const phone = phoneAt(service(problem(503, "moon_phase"), ok()));

  await phone.connect();

  assert.equal(phone.errors[0].code, "moon_phase");
});

test("a login with unknown fields and values is used", async () => {
  const phone = phoneAt(service(ok(login({ platform: "toaster", grant: "telepathy", extra: { a: 1 } }))));

  await phone.connect();
});

for (const body of ["null", "[]", '"text"', "7", '{"code": 7, "request_id": 7}', "<html>"]) {
  test(`a 403 with the body ${body} is an unexpected answer`, async () => {
    const phone = phoneAt(service(() => new Response(body, { status: 403 })));

    await assert.rejects(phone.connect(), { name: "DialtoneError", code: "unexpected_answer", retryable: false });
  });
}

for (const [name, options] of [
  ["no url", { url: undefined }],
  ["a url without a scheme", { url: "phones.example.com" }],
  ["no accessToken", { accessToken: undefined }],
  ["no createClient", { createClient: undefined }],
]) {
  test(`${name}: the constructor throws a DialtoneError`, () => {
    assert.throws(() => phoneAt(service(ok()), options), { name: "DialtoneError", code: "invalid_options" });
  });
}

test("an error of createClient rejects connect() with its cause", async () => {
  const cause = new TypeError("TelnyxRTC is not a constructor");
  const createClient = () => {
    throw cause;
  };

  await assert.rejects(phoneAt(service(ok()), { createClient }).connect(), { code: "sdk_failed", retryable: false, cause });
});

test("a listener that throws does not affect the phone", async () => {
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const phone = phoneAt(service(ok()));
  const leave = phone.on("state", () => {
    throw new Error("a bug of the page");
  });

  await phone.connect();
  leave();
  delete globalThis.reportError;

  assert.equal(phone.state, "ready");
  assert.equal(reported.length, 3);
});

test("a client whose connect() and disconnect() reject causes no unhandled rejection", async () => {
  const createClient = (options) => {
    const sdk = new FakeSdk(options);
    const connect = sdk.connect.bind(sdk);
    sdk.connect = () => connect().then(() => Promise.reject(new Error("no socket")));
    sdk.disconnect = () => Promise.reject(new Error("no socket"));
    return sdk;
  };
  const phone = phoneAt(service(ok()), { createClient });

  await phone.connect();
  await phone.close();

  assert.equal(phone.state, "idle");
});

test("a refresh that is denied keeps the connection, and a later one succeeds", async () => {
  const dialtone = service(ok(login({ refresh: 0.5, expires: 60 })), problem(403, "access_denied"), ok(login({ token: "token-2" })));
  const phone = phoneAt(dialtone);
  await phone.connect();

  await eventually(() => phone.errors.length === 1);
  assert.equal(phone.state, "ready");
  await phone.refresh();

  assert.deepEqual(FakeSdk.made[0].logins, ["token-2"]);
});

test("a denied refresh without a connection fails and disconnects", async () => {
  const phone = phoneAt(service(ok(), problem(403, "access_denied")));
  await phone.connect();
  FakeSdk.made[0].connected = false;

  await assert.rejects(phone.refresh(), { code: "access_denied" });

  assert.equal(phone.state, "failed");
  assert.ok(FakeSdk.made[0].isGone);
});
