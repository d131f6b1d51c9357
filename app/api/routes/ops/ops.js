/** The operators' page: polls the admin API, shows the status, and revokes leases after a confirmation. */

const EVERY_MS = 5000;
const MINUTES = 60;
const LOGINS = [["reused", "cached"], ["renewed", "renewed"], ["issued", "new devices"]];
const DENIALS = [["denied", "denied"], ["failed", "failed"]];

const $ = (id) => document.getElementById(id);
let token = "";
let timer;

class RequestFailed extends Error {}

/** Call the admin API. Throws RequestFailed with a message for the page. */
async function request(path, method = "GET", body) {
  const headers = { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) };
  let response;
  try {
    response = await fetch(`v1/admin${path}`, { method, headers, cache: "no-store", body: body && JSON.stringify(body) });
  } catch {
    throw new RequestFailed("The service is unavailable.");
  }
  if (response.status === 204) return {};
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new RequestFailed(`${content.title ?? "The request failed."} (${content.code ?? response.status})`);
  return content;
}

/** An element with text. Text is never parsed as markup, because users choose parts of it. */
function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** The sum of an object's numbers. */
function sum(counts) {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

function showSummary(state) {
  const leases = state.leases;
  const [ready, target] = [state.warm_pool_ready, state.warm_pool_target].map(sum);
  const entries = [
    ["active leases", leases.active ?? 0],
    ["pending leases", leases.pending ?? 0],
    ["warm pool", target ? `${ready} of ${target}` : "off", target && !ready],
    ["sweeper backlog", state.sweeper_backlog],
    ["irrevocable leases", state.irrevocable, state.irrevocable > 0],
    ["orphans", state.orphans, state.orphans > 0],
    ["audit events dropped", state.audit_dropped, state.audit_dropped > 0],
  ];
  $("summary").replaceChildren(...entries.map(([name, value, isBad]) => {
    const group = element("div");
    group.append(element("dt", name), element("dd", String(value), isBad ? "bad" : ""));
    return group;
  }));
  $("where").textContent = `${state.namespace}, version ${state.version}`;
  $("where").hidden = false;
}

function showTelnyx(telnyx) {
  const limit = telnyx.rate_limit;
  const rows = [
    ["circuit breaker", telnyx.breaker, telnyx.breaker === "open" ? "bad" : "good"],
    ["calls", `${telnyx.calls_in_flight} in flight, ${telnyx.calls_queued} queued`],
    ["rate limit", limit === null ? "not reported yet" : `${telnyx.rate_remaining ?? "?"} of ${limit} calls left`],
    ["last failure", telnyx.last_failure ? `${clock(telnyx.last_failure.at)} ${telnyx.last_failure.error}, ${telnyx.last_failure.operation}` : "none"],
  ];
  $("telnyx").replaceChildren(...rows.flatMap(([name, value, look]) => [element("dt", name), element("dd", value, look ?? "")]));
  $("budget").hidden = limit === null;
  if (limit) $("budget").value = (telnyx.rate_remaining ?? limit) / limit;
}

/** A stacked bar chart with one bar per minute. The legend shows the sum of each kind. */
function plot(name, kinds, minutes) {
  const now = Math.floor(Date.now() / 60000);
  const columns = Array.from({ length: MINUTES }, () => kinds.map(() => 0));
  for (const { minute, kind, events } of minutes) {
    const column = MINUTES - 1 - (now - Math.floor(Date.parse(minute) / 60000));
    const index = kinds.findIndex(([known]) => known === kind);
    if (columns[column] && index >= 0) columns[column][index] += events;
  }
  const top = Math.max(1, ...columns.map((column) => column.reduce((sum, count) => sum + count, 0)));
  const svg = $(name);
  svg.setAttribute("viewBox", `0 0 ${MINUTES} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  const shapes = [shape("line", { x1: 0, x2: MINUTES, y1: 99.5, y2: 99.5 })];
  columns.forEach((column, x) => {
    let y = 100;
    column.forEach((count, index) => {
      const height = (count / top) * 96;
      y -= height;
      if (count) shapes.push(shape("rect", { x: x + 0.1, y, width: 0.8, height, class: `s${index}` }));
    });
  });
  svg.replaceChildren(...shapes);
  $(`${name}-legend`).replaceChildren(
    ...kinds.map(([, label], index) => {
      const sum = columns.reduce((total, column) => total + column[index], 0);
      const entry = element("span", "", `s${index}`);
      entry.append(element("i"), element("b", String(sum)), ` ${label}`);
      return entry;
    }),
    element("span", `maximum per minute: ${top === 1 && columns.flat().every((count) => !count) ? 0 : top}`),
  );
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function showActivity(minutes) {
  plot("logins", LOGINS, minutes.map((found) => ({ ...found, kind: found.action })));
  const denied = minutes.filter((found) => found.action === "denied");
  plot("denials", DENIALS, denied.map((found) => ({ ...found, kind: found.outcome })));
}

function showAudit(events) {
  $("audit").replaceChildren(...events.map((event) => {
    const row = element("tr");
    const by = event.actor_subject === event.subject ? "" : event.actor_subject ?? "";
    const cells = [clock(event.at), event.action, event.outcome, event.subject ?? "", event.device_id ?? "", event.reason ?? "", by, event.client_address ?? ""];
    for (const cell of cells) {
      const made = element("td", cell);
      made.title = cell;
      row.append(made);
    }
    if (event.outcome === "failed") row.cells[2].className = "bad";
    return row;
  }));
}

const clock = (instant) => new Date(instant).toLocaleTimeString([], { hour12: false });

async function refresh() {
  clearTimeout(timer);
  try {
    const paths = ["/state", `/activity?minutes=${MINUTES}`, "/audit?limit=30"];
    const [state, activity, audit] = await Promise.all(paths.map((path) => request(path)));
    showSummary(state);
    showTelnyx(state.telnyx);
    showActivity(activity.data);
    showAudit(audit.data);
    $("sign-in").hidden = true;
    if ($("board").hidden) {
      $("board").hidden = false;
      $("subject").focus();
    }
    showError("");
  } catch (error) {
    showError(error.message);
    if ($("board").hidden) return;
  }
  timer = setTimeout(refresh, EVERY_MS);
}

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

async function find(subject) {
  const { data } = await request(`/leases?limit=50&subject=${encodeURIComponent(subject)}`);
  const live = data.filter((lease) => lease.state === "active" || lease.state === "pending");
  const ended = data.length - live.length;
  const rows = live.map((lease) => {
    const row = element("div", "", "lease");
    const text = element("p", `${lease.device_id}${lease.label ? ` (${lease.label})` : ""}, ${lease.platform}, ${lease.state}`);
    text.append(element("small", `${lease.sip_uri ?? "no SIP address yet"}, expires ${new Date(lease.expires_at).toLocaleString()}`));
    const button = element("button", "Revoke", "danger");
    button.onclick = () => revoke(`the device ${lease.device_id} of ${subject}`, subject, () => request(`/leases/${lease.id}`, "DELETE"));
    row.append(text, button);
    return row;
  });
  const summary = element("p", live.length ? "" : `${subject} has no live lease.`, "hint");
  if (ended) summary.textContent += ` ${ended} ended ${ended === 1 ? "lease" : "leases"} in the ledger.`;
  const issuers = [...new Set(data.map((lease) => lease.issuer))];
  const everywhere = live.length ? issuers.map((issuer) => {
    const button = element("button", issuers.length > 1 ? `Revoke all (${issuer})` : "Revoke all", "danger all");
    button.onclick = () => revoke(`all devices of ${subject}`, subject, (refuse) =>
      request("/revocations", "POST", { issuer, subject, refuse_tokens: refuse }), true);
    return button;
  }) : [];
  $("found").replaceChildren(...rows, ...everywhere, summary);
}

/** Revoke after a confirmation. Enter cancels. */
async function revoke(what, subject, act, offersTokens = false) {
  const dialog = $("confirm");
  $("confirm-what").textContent = `This logs out ${what}.`;
  $("confirm-tokens").hidden = !offersTokens;
  $("refuse").checked = true;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    await act($("refuse").checked);
    await find(subject);
    await refresh();
  } catch (error) {
    showError(error.message);
  }
}

$("enter").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  refresh();
};

$("search").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await find($("subject").value.trim());
  } catch (error) {
    showError(error.message);
  }
};

$("enter").querySelector("button").disabled = false;
$("token").focus();
