/** Parts that all panels use: elements, times, the view in the fragment of the URL, panel states, confirmations. */

export const $ = (id) => document.getElementById(id);

/** The text with visible escapes for the characters that reverse other text: users choose parts of it. */
export const plain = (text) =>
  String(text).replace(/[\u202a-\u202e\u2066-\u2069]/g, (character) => `\\u${character.charCodeAt(0).toString(16)}`);

/** An element with text. Text is never parsed as markup, because users choose parts of it. */
export function element(name, text = "", className = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = plain(text);
  if (className) made.className = className;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

/** A button. `key` identifies it, so that it keeps the focus when its panel is updated. */
export function button(text, act, { key, label, className = "" } = {}) {
  const made = element("button", text, className, { type: "button" });
  if (key) made.dataset.key = key;
  if (label) made.setAttribute("aria-label", label);
  made.onclick = act;
  return made;
}

/** Terms with their values, as children of a `dl`. An entry is [term, text or element, class name]. */
export function facts(entries) {
  return entries.map(([term, value, className = ""]) => {
    const group = element("div");
    const detail = element("dd", value instanceof Node ? "" : String(value), className);
    if (value instanceof Node) detail.append(value);
    group.append(element("dt", term), detail);
    return group;
  });
}

/** Replace the content, and keep the focus on the element with the same key. */
export function update(container, nodes) {
  const key = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  container.replaceChildren(...nodes);
  if (key) container.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// -- times ------------------------------------------------------------------------------------------------------------

const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone;
const zone = () => (view.get("zone") === "utc" ? "UTC" : LOCAL);

/** The names of the time zones that the page can show. */
export const ZONES = [["", LOCAL === "UTC" ? "UTC" : `${LOCAL} (browser)`], ...(LOCAL === "UTC" ? [] : [["utc", "UTC"]])];
export const zoneName = () => zone();

// Sweden's format is that of ISO 8601.
const format = (instant, timeZone, options) => new Intl.DateTimeFormat("sv-SE", { timeZone, ...options }).format(instant);
const DATE_AND_TIME = { dateStyle: "short", timeStyle: "medium" };

export const clock = (instant) => format(new Date(instant), zone(), { timeStyle: "medium" });
export const minute = (instant) => format(new Date(instant), zone(), { timeStyle: "short" });

/** A `time` element in the chosen zone, with UTC on hover. */
export function time(instant) {
  const date = new Date(instant);
  const title = `${format(date, "UTC", DATE_AND_TIME)} UTC`;
  return element("time", format(date, zone(), DATE_AND_TIME), "", { datetime: instant, title });
}

/** The instant of a `datetime-local` value in the chosen zone; null if it is not valid. */
export function instantOf(value) {
  const date = new Date(zone() === "UTC" ? `${value}Z` : value);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

// -- view -------------------------------------------------------------------------------------------------------------

/** The view: search, filters and time zone, in the fragment of the URL. It contains no secret, so it can be shared. */
export const view = {
  get: (name) => new URLSearchParams(location.hash.slice(1)).get(name) ?? "",
  set(changes) {
    const entries = new URLSearchParams(location.hash.slice(1));
    for (const [name, value] of Object.entries(changes)) {
      if (value) entries.set(name, value);
      else entries.delete(name);
    }
    history.replaceState(null, "", `${location.pathname}${location.search}${entries.size ? `#${entries}` : ""}`);
  },
};

// -- states of a panel ------------------------------------------------------------------------------------------------

/** Load data into a panel. On failure, the panel keeps its data and shows the error. Rethrows an ended session. */
export async function load(panel, fetchData, show) {
  const section = $(panel);
  let state = section.querySelector(".state");
  if (state === null) {
    state = element("p", "Loading", "state", { role: "status" });
    section.querySelector("h2").after(state);
  }
  section.setAttribute("aria-busy", "true");
  try {
    show(await fetchData());
    section.dataset.loadedAt = new Date().toISOString();
    state.hidden = true;
    state.classList.remove("bad");
    state.textContent = "";
  } catch (error) {
    const since = section.dataset.loadedAt ? ` The data is from ${clock(section.dataset.loadedAt)}.` : "";
    setText(state, `${error.message}${since}`);
    state.classList.add("bad");
    state.hidden = false;
    if (error.kind === "session") throw error;
    if (error.kind === undefined) console.error(error);
  } finally {
    section.setAttribute("aria-busy", "false");
  }
}

/** Set the text of a status line. An unchanged text is not announced again. */
export function setText(line, text) {
  if (line.textContent !== plain(text)) line.textContent = plain(text);
}

/** Announce the result of an action. */
export function notify(text) {
  $("notice").textContent = plain(text);
  $("notice").hidden = !text;
}

/** Ask for confirmation. Returns null if the operator cancels, else whether the option is checked. */
export async function confirmed({ title, effects, yes, option, isChecked = true }) {
  const dialog = $("confirm");
  $("confirm-title").textContent = plain(title);
  $("confirm-effects").replaceChildren(...effects.map((effect) => element("li", effect)));
  $("confirm-yes").textContent = yes;
  $("confirm-more").hidden = !option;
  $("confirm-option-text").textContent = option ?? "";
  $("confirm-option").checked = isChecked;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  return dialog.returnValue === "yes" ? $("confirm-option").checked : null;
}
