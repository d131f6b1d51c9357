/** The panels of the service's status: leases and queues, Telnyx, signing keys of the issuers, and the policy. */

import { request } from "./api.js";
import { $, button, confirmed, element, facts, notify, time, update } from "./page.js";

/** The sum of an object's numbers. */
function sum(counts) {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

export function showStatus(state) {
  const { leases } = state;
  const [ready, target] = [state.warm_pool_ready, state.warm_pool_target].map(sum);
  const bad = (isBad) => (isBad ? "bad" : "");
  $("summary").replaceChildren(...facts([
    ["active leases", leases.active ?? 0],
    ["pending leases", leases.pending ?? 0],
    ["warm pool", target ? `${ready} of ${target}` : "off", bad(target && !ready)],
    ["sweeper backlog", state.sweeper_backlog],
    ["irrevocable leases", state.irrevocable, bad(state.irrevocable)],
    ["orphans", state.orphans, bad(state.orphans)],
    ["audit events queued", state.audit_queued],
    ["audit events dropped", state.audit_dropped, bad(state.audit_dropped)],
  ]));
  $("where").textContent = `${state.namespace}, version ${state.version}`;
  $("where").hidden = false;
  showTelnyx(state.telnyx);
}

function showTelnyx(telnyx) {
  const failure = element("span", "none");
  if (telnyx.last_failure) {
    failure.replaceChildren(time(telnyx.last_failure.at), `, ${telnyx.last_failure.error}, ${telnyx.last_failure.operation}`);
  }
  const limit = telnyx.rate_limit;
  $("telnyx").replaceChildren(...facts([
    ["circuit breaker", telnyx.breaker === "open" ? "open: calls are suspended" : telnyx.breaker, telnyx.breaker === "open" ? "bad" : "good"],
    ["calls", `${telnyx.calls_in_flight} in flight, ${telnyx.calls_queued} queued, at most ${Math.floor(telnyx.concurrency_limit)}`],
    ["rate limit", limit === null ? "not reported yet" : `${telnyx.rate_remaining ?? "?"} of ${limit} calls left`],
    ["last failure", failure],
  ]));
}

/** The issuers, as the keys panel knows them. */
export let issuers = [];

export function showKeys(keySets, reload) {
  issuers = keySets.map((found) => found.issuer);
  update($("keys"), keySets.map((found) => {
    const row = element("div", "", "row");
    const age = found.age_seconds === null ? "from the configuration, or none fetched" : `confirmed ${ago(found.age_seconds)} ago`;
    const list = element("dl", "", "facts");
    list.append(...facts([
      ["usable keys", `${found.keys}, ${age}`, found.keys ? "" : "bad"],
      ["fetches", `${found.fetches}, of which ${found.failures} failed`],
      ["last failure", found.last_failure ?? "none", found.last_failure ? "bad" : ""],
      ...found.skipped.filter((key) => key.is_fault).map((key) => [`unused key ${key.kid ?? "without kid"}`, key.reason, "bad"]),
    ]));
    const acts = element("p", "", "actions");
    acts.append(
      button("Fetch keys", () => fetchKeys(found.issuer, reload), { key: `fetch ${found.issuer}`, label: `Fetch keys of ${found.issuer}` }),
      button("Reject tokens", () => rejectTokensOfIssuer(found.issuer), { key: `reject ${found.issuer}`, label: `Reject tokens of ${found.issuer}`, className: "danger" }),
    );
    row.append(element("h3", found.issuer), list, acts);
    return row;
  }));
  $("refresh-keys").hidden = keySets.length < 2;
}

function ago(seconds) {
  const [count, unit] = seconds < 90 ? [seconds, "seconds"] : seconds < 5400 ? [seconds / 60, "minutes"] : [seconds / 3600, "hours"];
  return `${Math.round(count)} ${unit}`;
}

/** Fetch the keys of one issuer, or of all. */
export async function fetchKeys(issuer, reload) {
  const { refreshed } = await request("/keys/refresh", "POST", issuer === null ? {} : { issuer });
  const failed = Object.keys(refreshed).filter((name) => !refreshed[name]);
  notify(failed.length
    ? `The keys of ${failed.join(", ")} could not be fetched. The former keys stay in use.`
    : `Dialtone fetched the keys of ${Object.keys(refreshed).join(", ")}. Other replicas fetch them within two seconds.`);
  await reload();
}

async function rejectTokensOfIssuer(issuer) {
  const answer = await confirmed({
    title: `Reject all tokens of ${issuer}`,
    effects: [
      "Dialtone rejects every token that this issuer issued before now, on all replicas. This cannot be undone.",
      "All users of the issuer need a new token, operators included.",
      "Devices stay logged in until their login expires or you log them out.",
    ],
    yes: "Reject tokens",
  });
  if (answer === null) return;
  const { not_before: moment } = await request("/not-before", "PUT", { issuer });
  notify(`Dialtone rejects tokens of ${issuer} that were issued before ${moment}.`);
}

const MODES = {
  enforce: "Enforced. The first matching rule decides. Users without a matching rule are denied.",
  shadow: "Shadow: every user of a configured issuer is allowed. The decisions of the rules are only logged.",
  none: "There are no rules. Every user of a configured issuer is allowed.",
};

function effectOf(rule) {
  if (rule.effect === "deny" || !rule.admin) return rule.effect === "deny" ? "denies" : "allows";
  return `allows, also operators${rule.admin_issuers ? ` of ${rule.admin_issuers.join(", ")}` : ""}`;
}

export function showPolicy({ mode, rules }) {
  $("policy-mode").textContent = MODES[mode];
  $("rules").replaceChildren(...rules.map((rule) => {
    const conditions = [
      rule.issuers && `issuer ${rule.issuers.join(" or ")}`,
      rule.claims.length && `claims ${rule.claims.join(", ")}`,
      rule.scopes.length && `scopes ${rule.scopes.join(" ")}`,
    ].filter(Boolean);
    const entry = element("li", "", "rule");
    entry.append(
      element("b", rule.name),
      ` ${effectOf(rule)}: ${conditions.join("; ") || "all users"}`,
    );
    if (rule.mode === "shadow") entry.append(element("em", " (shadow)"));
    return entry;
  }));
}
