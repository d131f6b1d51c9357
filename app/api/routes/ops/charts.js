/** Stacked bar charts with one bar per minute. The values of a minute are shown on hover and with the arrow keys. */

import { serverNow } from "./api.js";
import { $, element, minute as clockMinute } from "./page.js";

export const MINUTES = 60;
const HEIGHT = 150;
const EDGE = { left: 44, right: 8, top: 10, bottom: 24 };
const LABEL_EVERY_MINUTES = 15;

const LOGINS = [["reused", "cached"], ["renewed", "renewed"], ["issued", "new devices"]];
const DENIALS = [["denied", "denied"], ["failed", "failed"]];

const charts = new Map();

/** Show the events per minute of the last hour. */
export function showActivity(minutes) {
  chart("logins", "Logins", LOGINS).show(minutes.map((found) => ({ ...found, kind: found.action })));
  const denied = minutes.filter((found) => found.action === "denied");
  chart("denials", "Denied and failed requests", DENIALS).show(denied.map((found) => ({ ...found, kind: found.outcome })));
}

function chart(id, name, kinds) {
  if (!charts.has(id)) charts.set(id, new Chart($(id), name, kinds));
  return charts.get(id);
}

class Chart {
  constructor(container, name, kinds) {
    this.name = name;
    this.kinds = kinds;
    this.columns = [];
    this.selected = null;
    this.frame = element("div", "", "plot", { tabindex: 0, role: "slider", "aria-label": `${name} per minute`, "aria-valuemin": 1, "aria-valuemax": MINUTES });
    this.svg = shape("svg", { "aria-hidden": "true", height: HEIGHT });
    this.values = element("p", "", "values");
    this.legend = element("p", "", "legend");
    this.frame.append(this.svg);
    container.replaceChildren(this.frame, this.values, this.legend);
    this.frame.onkeydown = (event) => this.pressed(event);
    this.frame.onpointermove = (event) => this.select(this.columnAt(event.clientX));
    this.frame.onpointerleave = () => this.select(null);
    this.frame.onfocus = () => this.selected ?? this.select(MINUTES - 1);
    this.frame.onblur = () => this.select(null);
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  show(minutes) {
    this.now = Math.floor(serverNow() / 60_000);
    this.columns = Array.from({ length: MINUTES }, () => this.kinds.map(() => 0));
    for (const { minute, kind, events } of minutes) {
      const column = this.columns[MINUTES - 1 - (this.now - Math.floor(Date.parse(minute) / 60_000))];
      const index = this.kinds.findIndex(([known]) => known === kind);
      if (column && index >= 0) column[index] += events;
    }
    this.legend.replaceChildren(...this.kinds.map(([, label], index) => {
      const entry = element("span", "", `s${index}`);
      const sum = this.columns.reduce((total, column) => total + column[index], 0);
      entry.append(element("i"), element("b", sum.toLocaleString("en")), ` ${label}`);
      return entry;
    }));
    this.draw();
  }

  draw() {
    const width = this.frame.clientWidth;
    if (!width || !this.columns.length) return;
    const right = width - EDGE.right;
    const bottom = HEIGHT - EDGE.bottom;
    const top = niceMaximum(Math.max(...this.columns.map(total)));
    this.barWidth = (right - EDGE.left) / MINUTES;
    const x = (column) => EDGE.left + column * this.barWidth;
    const y = (count) => bottom - (count / top) * (bottom - EDGE.top);
    const shapes = [];
    for (const count of [0, top / 2, top]) {
      shapes.push(shape("line", { x1: EDGE.left, x2: right, y1: y(count), y2: y(count) }));
      shapes.push(label(count.toLocaleString("en"), { x: EDGE.left - 6, y: y(count) + 4, "text-anchor": "end" }));
    }
    for (let ago = MINUTES; ago >= 0; ago -= LABEL_EVERY_MINUTES) {
      const column = Math.min(MINUTES - ago, MINUTES - 1);
      const anchor = ago === MINUTES ? "start" : ago === 0 ? "end" : "middle";
      const position = anchor === "end" ? right : x(column);
      shapes.push(label(this.clockOf(column), { x: position, y: HEIGHT - 6, "text-anchor": anchor }));
    }
    this.columns.forEach((column, index) => {
      let below = 0;
      column.forEach((count, kind) => {
        if (!count) return;
        const attributes = { x: x(index) + 0.5, y: y(below + count), width: Math.max(this.barWidth - 1, 1), height: y(below) - y(below + count) };
        shapes.push(shape("rect", { ...attributes, class: `s${kind}` }));
        below += count;
      });
    });
    this.cursor = shape("rect", { y: EDGE.top, width: this.barWidth, height: bottom - EDGE.top, class: "cursor" });
    this.svg.setAttribute("width", width);
    this.svg.replaceChildren(this.cursor, ...shapes);
    this.select(this.selected);
  }

  /** Show the values of a minute; null shows the sum of the hour. */
  select(column) {
    this.selected = column;
    const counts = this.kinds.map(([, name], kind) => `${(column === null ? 0 : this.columns[column]?.[kind]) ?? 0} ${name}`);
    const sum = this.columns.reduce((all, found) => all + total(found), 0);
    const text = column === null ? `Sum of the last hour: ${sum.toLocaleString("en")}` : `${this.clockOf(column)}: ${counts.join(", ")}`;
    this.values.textContent = text;
    this.frame.setAttribute("aria-valuenow", column === null ? MINUTES : column + 1);
    this.frame.setAttribute("aria-valuetext", text);
    this.cursor?.setAttribute("visibility", column === null ? "hidden" : "visible");
    if (column !== null) this.cursor?.setAttribute("x", EDGE.left + column * this.barWidth);
  }

  pressed(event) {
    const current = this.selected ?? MINUTES - 1;
    const target = { ArrowLeft: current - 1, ArrowRight: current + 1, ArrowDown: current - 1, ArrowUp: current + 1, PageDown: current - 10, PageUp: current + 10, Home: 0, End: MINUTES - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.select(Math.min(Math.max(target, 0), MINUTES - 1));
  }

  columnAt(clientX) {
    const column = Math.floor((clientX - this.svg.getBoundingClientRect().left - EDGE.left) / this.barWidth);
    return column >= 0 && column < MINUTES ? column : null;
  }

  clockOf(column) {
    return clockMinute((this.now - (MINUTES - 1 - column)) * 60_000);
  }
}

const total = (column) => column.reduce((sum, count) => sum + count, 0);

/** The least of 2, 4, 10, 20, 40, 100, ... that is not below the count. Half of it is an integer. */
function niceMaximum(count) {
  for (let unit = 1; ; unit *= 10) {
    const found = [2, 4, 10].find((factor) => factor * unit >= count);
    if (found) return found * unit;
  }
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function label(text, attributes) {
  const made = shape("text", attributes);
  made.textContent = text;
  return made;
}
