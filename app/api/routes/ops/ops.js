/** The operators' page: sign-in, and panels that poll the admin API. */

import { hasSession, providerOfSession, request, useSession } from "./api.js";
import { applyFilters, clearFilters, filterByUser, refreshAudit, restoreAudit, showCustomRange, showNewest, showOlder } from "./audit.js";
import { MINUTES, showActivity } from "./charts.js";
import { refreshSearch, restoreSearch, search } from "./devices.js";
import { $, clock, load, notify, setText, view, ZONES } from "./page.js";
import { begin, endSessionUrl, finish, isJwt, isResponse, SignInFailed, takeResponse } from "./sign-in.js";
import { fetchKeys, showKeys, showPolicy, showStatus } from "./status.js";

const EVERY_MS = 5_000;
const STALE_MS = 15_000;
/** Panels about the whole service, which an operator of some issuers may not see. */
const SERVICE_PANELS = ["status-panel", "logins-panel", "denials-panel", "telnyx-panel"];

let settings = { status: "not_configured" };
let timer;
let updatedAt = null;
let running = null;
let isErrorOfRefresh = false;

// -- refresh ----------------------------------------------------------------------------------------------------------

/** Refresh all panels. Calls during a refresh share it. */
function refresh() {
  running ??= refreshOnce().finally(() => {
    running = null;
  });
  return running;
}

async function refreshOnce() {
  clearTimeout(timer);
  try {
    // One request first: a rejected token is then one audit event.
    const policy = await request("/policy");
    const seesAll = policy.visible_issuers === null;
    for (const panel of SERVICE_PANELS) $(panel).hidden = !seesAll;
    showBoard();
    await Promise.all([
      seesAll && load("status-panel", () => request("/state"), showStatus),
      seesAll && load("logins-panel", () => request(`/activity?minutes=${MINUTES}`), (report) => showActivity(report.data)),
      load("devices-panel", refreshSearch, () => {}),
      load("audit-panel", refreshAudit, () => {}),
      load("keys-panel", () => request("/keys"), (report) => showKeys(report.data, refresh)),
      load("policy-panel", async () => policy, showPolicy),
    ]);
    updatedAt = Date.now();
    // The error of an action stays until the next action.
    if (isErrorOfRefresh) showError("");
  } catch (error) {
    if (error.kind === "forbidden") showNotAnOperator(error.reason);
    else failed(error);
    isErrorOfRefresh = true;
    if (error.kind === "session" || error.kind === "forbidden") return;
  } finally {
    showAge();
  }
  if (hasSession() && !document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

/** Run the action of a button or form, and show its error. */
const run = (act) => async (event) => {
  event?.preventDefault();
  notify("");
  showError("");
  try {
    await act(event);
  } catch (error) {
    failed(error);
  }
};

function failed(error) {
  if (error.kind === "session") {
    const isOpen = !$("board").hidden;
    useSession(null);
    clearTimeout(timer);
    showSignIn();
    if (!isOpen) showError(`${error.message} The command dialtone token explain shows the reason.`);
    else showError(`Your session has ended. Sign in again: the view is kept. ${error.message}`, signInAgain());
  } else if (error.kind === "unavailable") {
    showError(`${error.message}${hasSession() ? " The page retries." : ""}`);
  } else {
    if (error.kind === undefined && !(error instanceof SignInFailed)) console.error(error);
    showError(error.message);
  }
}

/** End the session of an account that may not see the page, and hide all data. */
function showNotAnOperator(reason) {
  const provider = providerOfSession();
  useSession(null);
  clearTimeout(timer);
  $("board").hidden = $("controls").hidden = true;
  showSignIn();
  showError(`This account is not an operator's. ${reason}`, provider && otherAccount(provider));
}

/** Show an error, with a button if it has an action, which is [text, function]. */
function showError(message, action = null) {
  isErrorOfRefresh = false;
  setText($("error-text"), message);
  $("error").hidden = !message;
  $("error-action").hidden = !action;
  if (!action) return;
  $("error-action").textContent = action[0];
  $("error-action").onclick = run(action[1]);
}

const signInAgain = () => settings.status === "available" && ["Sign in again", () => begin(settings)];

/** The provider may sign in the same account without a question, until its session ends or it is asked for another. */
function otherAccount(provider) {
  const url = endSessionUrl(provider);
  return url ? ["Sign out", () => location.assign(url)] : ["Sign in with another account", () => begin(provider, "select_account")];
}

function showAge() {
  if (updatedAt === null) return;
  const isStale = Date.now() - updatedAt > STALE_MS;
  $("board").classList.toggle("stale", isStale);
  $("updated").classList.toggle("bad", isStale);
  $("updated").setAttribute("aria-live", isStale ? "polite" : "off");
  setText($("updated"), isStale ? `Not updated since ${clock(updatedAt)}` : `Updated at ${clock(updatedAt)}`);
}

function showBoard() {
  $("sign-in").hidden = true;
  $("controls").hidden = false;
  if (!$("board").hidden) return;
  $("board").hidden = false;
  $("query").focus({ preventScroll: true });
}

/** Show the sign-in above the board, which keeps its data. */
function showSignIn() {
  $("sign-in").hidden = false;
  if (settings.status !== "available") $("paste").open = true;
}

// -- sign-in ----------------------------------------------------------------------------------------------------------

const STATES = {
  available: "Sign in with an operator's account of your identity provider.",
  unavailable: "The identity provider is unavailable. Reload the page to try again, or enter an access token.",
  not_configured: "No sign-in is configured. Enter an access token of your identity provider.",
  unreachable: "Dialtone does not answer. Reload the page to try again.",
};

async function start() {
  const returned = isResponse() ? takeResponse() : null;
  restoreView();
  try {
    const response = await fetch("ops/sign-in.json", { cache: "no-store" });
    const found = await response.json();
    if (!response.ok || !(found?.status in STATES)) throw new Error();
    settings = found;
  } catch {
    settings = { status: "unreachable" };
  }
  $("sign-in-state").textContent = STATES[settings.status];
  $("provider").hidden = settings.status !== "available";
  if (settings.status === "available") $("provider").textContent = `Sign in with ${new URL(settings.issuer).host}`;
  else $("paste").open = true;
  if (!returned) return;
  if (settings.status !== "available") throw new SignInFailed(`The sign-in cannot be completed. ${STATES[settings.status]}`);
  $("sign-in-state").textContent = "Signing in.";
  try {
    useSession(await finish(settings, returned), settings);
    await refresh();
  } finally {
    $("sign-in-state").textContent = STATES.available;
  }
}

function restoreView() {
  $("zone").replaceChildren(...ZONES.map(([value, name]) => new Option(name, value)));
  $("zone").value = view.get("zone");
  if ($("zone").selectedIndex < 0) $("zone").selectedIndex = 0;
  restoreSearch();
  restoreAudit();
}

/** Forget the token and all data. The session at the provider continues until the operator ends it there. */
function signOut() {
  const url = endSessionUrl(providerOfSession());
  useSession(null);
  if (url) {
    location.assign(url);
    return;
  }
  location.reload();
}

$("provider").onclick = run(() => begin(settings));
$("sign-out").onclick = run(signOut);
$("enter").onsubmit = run(() => {
  const token = $("token").value.trim().replace(/^bearer\s+/i, "");
  $("token").value = "";
  if (!isJwt(token)) throw new SignInFailed("This text is not an access token. A token has three parts with dots between them, and no spaces.");
  useSession({ token });
  return refresh();
});

// -- controls ---------------------------------------------------------------------------------------------------------

$("refresh").onclick = run(refresh);
$("search").onsubmit = run(() => load("devices-panel", search, () => {}));
$("filters").onsubmit = run(() => {
  applyFilters();
  return load("audit-panel", refreshAudit, () => {});
});
$("clear").onclick = run(() => {
  clearFilters();
  return load("audit-panel", refreshAudit, () => {});
});
$("range").onchange = showCustomRange;
$("older").onclick = run(showOlder);
$("newest").onclick = run(() => {
  showNewest();
  return load("audit-panel", refreshAudit, () => {});
});
$("refresh-keys").onclick = run(() => fetchKeys(null, refresh));
$("zone").onchange = run(() => {
  view.set({ zone: $("zone").value });
  restoreAudit();
  showNewest();
  return refresh();
});
document.addEventListener("changed", refresh);
document.addEventListener("audit-of", run(async (event) => {
  filterByUser(event.detail);
  await load("audit-panel", refreshAudit, () => {});
  $("audit-title").scrollIntoView();
}));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && hasSession()) refresh();
});
// The browser may restore the page as it was at the sign-out, with all data.
window.addEventListener("pageshow", (event) => {
  if (event.persisted && !hasSession()) location.reload();
});
window.addEventListener("hashchange", run(() => {
  restoreView();
  showNewest();
  return hasSession() ? refresh() : undefined;
}));
window.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  failed(event.reason);
});
setInterval(showAge, 1_000);

run(start)();
