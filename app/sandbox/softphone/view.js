/** Rendering of the page, without decisions. Text is never parsed as markup. */

const STATES = {
  idle: "Signed out",
  fetching: "Requesting a login from Dialtone",
  waiting: "Waiting until Telnyx has propagated the new credential",
  connecting: "Logging in",
  ready: "Registered",
  reconnecting: "Connection lost, reconnecting",
  failed: "Not registered",
  logged_out: "Logged out, credential deleted",
};

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function showState(state) {
  $("state").textContent = STATES[state] ?? state;
  $("lamp").dataset.state = state;
}

export function showError(error) {
  const box = $("error");
  box.hidden = !error;
  if (!error) return;
  const id = error.details?.requestId ? ` · request ${error.details.requestId}` : "";
  box.replaceChildren(error.message, element("small", {}, `${error.code ?? "error"}${id}`));
}

/** Copy the text of the element. Where the clipboard is unavailable, select it. Returns whether it was copied. */
export async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return false;
  }
}

/** The times of a login on a timeline, and as a list. The timeline begins when the login was issued. */
export function showLife(login, skewMs) {
  const line = $("timeline");
  if (!login) {
    line.replaceChildren(element("p", { className: "hint" }, "No login yet."));
    $("times").replaceChildren();
    line.setAttribute("aria-label", "No login yet");
    $("usable-hint").hidden = true;
    return;
  }
  const at = (name) => Date.parse(login[name]);
  const from = at("issued_at");
  const share = (time) => Math.min(100, Math.max(0, ((time - from) / (at("expires_at") - from)) * 100));
  const now = Date.now() + skewMs;
  const marks = [
    ["issued", at("issued_at"), ""],
    ["usable", at("usable_at"), "low"],
    ["refresh due", at("refresh_after"), ""],
    ["expires", at("expires_at"), "low"],
  ];
  const lived = element("div", { className: "lived" });
  lived.style.width = `${share(now)}%`;
  line.replaceChildren(
    element("div", { className: "bar" }),
    lived,
    ...marks.map(([name, time, row]) => {
      const edge = share(time) < 15 ? "start" : share(time) > 85 ? "end" : "";
      const mark = element("div", { className: `mark ${row} ${edge}` }, element("span", {}, name));
      mark.style.left = `${share(time)}%`;
      return mark;
    }),
  );
  $("usable-hint").hidden = at("usable_at") > from;
  const left = Math.round((at("expires_at") - now) / 1000);
  line.setAttribute("aria-label", left > 0 ? `The login expires in ${left} seconds` : "The login has expired");
  $("times").replaceChildren(
    ...marks.flatMap(([name, time]) => [
      element("dt", {}, name),
      element("dd", {}, `${new Date(time).toLocaleTimeString()}  (${relative(time - now)})`),
    ]),
  );
}

function relative(milliseconds) {
  const seconds = Math.round(Math.abs(milliseconds) / 1000);
  const text = seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
  return milliseconds < 0 ? `${text} ago` : `in ${text}`;
}

const SECRET = /^(login_token|password|access_token)$/;

function masked(body) {
  if (!body) return "";
  try {
    return JSON.stringify(JSON.parse(body), (key, value) => (SECRET.test(key) ? "•••••••• (masked)" : value), 2);
  } catch {
    return body.slice(0, 2000);
  }
}

/** Show a request and its response above the older ones. */
export function showExchange({ method, url, requestBody, status, milliseconds, headers, responseBody }) {
  const said = element("span", { className: status >= 200 && status < 400 ? "" : "bad" }, status ? String(status) : "no response");
  const text = [
    `${method} ${url}`,
    "Authorization: Bearer •••••••• (masked)",
    ...(requestBody ? ["Content-Type: application/json", "", masked(requestBody)] : []),
    "",
    `→ ${status || "no response"}  (${milliseconds} ms)`,
    ...headers,
    "",
    masked(responseBody),
  ].join("\n");
  const path = new URL(url).pathname;
  $("exchanges").prepend(
    element("li", {}, element("details", {}, element("summary", {}, element("b", {}, method), `${path}  `, said), element("pre", {}, text))),
  );
}
