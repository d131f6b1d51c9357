// As wrk.lua, with autocannon: node load.mjs URL CONNECTIONS SECONDS, with the file of requests in REQUESTS.
import { readFileSync } from "node:fs";
import autocannon from "autocannon";

const [url, connections, seconds] = process.argv.slice(2);
const requests = readFileSync(process.env.REQUESTS, "utf8").trim().split("\n").map((line) => {
  const [method, path, headers, body] = line.split("\x01");
  const named = Object.fromEntries(headers.split("\x02").filter(Boolean).map((header) => {
    const at = header.indexOf("=");
    return [header.slice(0, at), header.slice(at + 1)];
  }));
  return { method, path, headers: named, body: body || undefined };
});
// In a loop, each connection starts at a different request, so that they do not send the same one at the same time.
// With ONCE, each connection has its own part of the requests, and the run ends when they are sent.
const isOnce = process.env.ONCE === "1";
let client = 0;
const result = await autocannon({
  url, connections: Number(connections), ...(isOnce ? { amount: requests.length } : { duration: Number(seconds) }), requests,
  setupClient: (one) => one.setRequests(isOnce
    ? part(requests, client++, Number(connections))
    : rotated(requests, Math.floor(Math.random() * requests.length))),
});
process.stdout.write(JSON.stringify({
  requests: result.requests.total, seconds: result.duration, p50_ms: result.latency.p50, p99_ms: result.latency.p99,
  other: result.non2xx, broken: result.errors + result.timeouts,
}) + "\n");

function rotated(list, by) {
  return [...list.slice(by), ...list.slice(0, by)];
}

function part(list, number, parts) {
  return list.filter((_, index) => index % parts === number);
}
