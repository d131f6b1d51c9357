/** The operator's page: reads the admin API every few seconds, draws it, and ends a device or a user after a question. */

const EVERY_MS = 5000;
const MINUTES = 60;
const LOGINS = [["reused", "from memory"], ["renewed", "renewed"], ["issued", "new devices"]];
const REFUSALS = [["denied", "denied by policy"], ["failed", "failed"]];

const $ = (id) => document.getElementById(id);
let token = "";
let timer;

class Refused extends Error {}

/** One call of the admin API. Throws Refused with a sentence for the reader. */
async function ask(path, method = "GET", body) {
  const headers = { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) };
  let answer;
  try {
    answer = await fetch(`v1/admin${path}`, { method, headers, cache: "no-store", body: body && JSON.stringify(body) });
  } catch {
    throw new Refused("The service does not answer.");
  }
  if (answer.status === 204) return {};
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(`${said.title ?? "The service answered with an error."} (${said.code ?? answer.status})`);
  return said;
}

/** An element with text in it. Everything that came from outside goes in as text, never as markup. */
function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function showFigures(state) {
  const leases = state.leases;
  const ready = Object.values(state.warm_pool_ready).reduce((sum, count) => sum + count, 0);
  const figures = [
    ["live devices", leases.active ?? 0],
    ["being made", leases.pending ?? 0],
    ["warm pool", state.warm_pool_size ? `${ready} of ${state.warm_pool_size * Object.keys(state.warm_pool_ready).length}` : "off", state.warm_pool_size && !ready],
    ["to be deleted", state.sweeper_backlog],
    ["irrevocable leases", state.irrevocable, state.irrevocable > 0],
    ["orphans", state.orphans, state.orphans > 0],
    ["audit dropped", state.audit_dropped, state.audit_dropped > 0],
  ];
  $("figures").replaceChildren(...figures.map(([name, value, isBad]) => {
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
    ["breaker", telnyx.breaker, telnyx.breaker === "open" ? "bad" : "good"],
    ["calls", `${telnyx.calls_in_flight} in flight, ${telnyx.calls_queued} queued`],
    ["rate", limit === null ? "not told yet" : `${telnyx.rate_remaining ?? "?"} of ${limit} left`],
    ["last failure", telnyx.last_failure ? `${clock(telnyx.last_failure.at)} ${telnyx.last_failure.error}, ${telnyx.last_failure.operation}` : "none"],
  ];
  $("telnyx").replaceChildren(...rows.flatMap(([name, value, look]) => [element("dt", name), element("dd", value, look ?? "")]));
  $("budget").hidden = limit === null;
  if (limit) $("budget").value = (telnyx.rate_remaining ?? limit) / limit;
}

/** Bars of one minute each, the kinds on top of each other; the legend says the sums. */
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
  $(`${name}-said`).replaceChildren(
    ...kinds.map(([, label], index) => {
      const sum = columns.reduce((total, column) => total + column[index], 0);
      const entry = element("span", "", `s${index}`);
      entry.append(element("i"), element("b", String(sum)), ` ${label}`);
      return entry;
    }),
    element("span", `highest minute: ${top === 1 && columns.flat().every((count) => !count) ? 0 : top}`),
  );
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function showActivity(minutes) {
  plot("logins", LOGINS, minutes.map((found) => ({ ...found, kind: found.action })));
  const refused = minutes.filter((found) => found.action === "denied");
  plot("refusals", REFUSALS, refused.map((found) => ({ ...found, kind: found.outcome })));
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

async function look() {
  clearTimeout(timer);
  try {
    const [state, activity, audit] = await Promise.all([ask("/state"), ask(`/activity?minutes=${MINUTES}`), ask("/audit?limit=30")]);
    showFigures(state);
    showTelnyx(state.telnyx);
    showActivity(activity.data);
    showAudit(audit.data);
    $("door").hidden = true;
    if ($("board").hidden) {
      $("board").hidden = false;
      $("subject").focus();
    }
    complain("");
  } catch (error) {
    complain(error.message);
    if ($("board").hidden) return;
  }
  timer = setTimeout(look, EVERY_MS);
}

function complain(sentence) {
  $("error").textContent = sentence;
  $("error").hidden = !sentence;
}

async function find(subject) {
  const { data } = await ask(`/leases?limit=50&subject=${encodeURIComponent(subject)}`);
  const live = data.filter((lease) => lease.state === "active" || lease.state === "pending");
  const ended = data.length - live.length;
  const rows = live.map((lease) => {
    const row = element("div", "", "lease");
    const text = element("p", `${lease.device_id}${lease.label ? ` (${lease.label})` : ""}, ${lease.platform}, ${lease.state}`);
    text.append(element("small", `${lease.sip_uri ?? "no SIP address yet"}, until ${new Date(lease.expires_at).toLocaleString()}`));
    const button = element("button", "Log out", "danger");
    button.onclick = () => end(`${subject}'s device ${lease.device_id}`, subject, () => ask(`/leases/${lease.id}`, "DELETE"));
    row.append(text, button);
    return row;
  });
  const summary = element("p", live.length ? "" : `${subject} has no live device.`, "hint");
  if (ended) summary.textContent += ` ${ended} ended ${ended === 1 ? "one" : "ones"} in the ledger.`;
  const issuers = [...new Set(data.map((lease) => lease.issuer))];
  const everywhere = live.length ? issuers.map((issuer) => {
    const button = element("button", issuers.length > 1 ? `Log out everywhere (${issuer})` : "Log out everywhere", "danger all");
    button.onclick = () => end(`${subject} on every device`, subject, (refuse) =>
      ask("/revocations", "POST", { issuer, subject, refuse_tokens: refuse }), true);
    return button;
  }) : [];
  $("found").replaceChildren(...rows, ...everywhere, summary);
}

/** Nothing is ended without a question, and "no" is what Enter says. */
async function end(what, subject, act, asksForTokens = false) {
  const dialog = $("confirm");
  $("confirm-what").textContent = `This logs out ${what}.`;
  $("confirm-tokens").hidden = !asksForTokens;
  $("refuse").checked = true;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    await act($("refuse").checked);
    await find(subject);
    await look();
  } catch (error) {
    complain(error.message);
  }
}

$("enter").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  look();
};

$("search").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await find($("subject").value.trim());
  } catch (error) {
    complain(error.message);
  }
};

$("enter").querySelector("button").disabled = false;
$("token").focus();
