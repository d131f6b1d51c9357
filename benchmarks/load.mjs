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
// Each connection starts at a different request, so that they do not send the same one at the same time.
const result = await autocannon({
  url, connections: Number(connections), duration: Number(seconds), requests,
  setupClient: (client) => client.setRequests(rotated(requests, Math.floor(Math.random() * requests.length))),
});
process.stdout.write(JSON.stringify({
  requests: result.requests.total, seconds: result.duration, p50_ms: result.latency.p50, p99_ms: result.latency.p99,
  other: result.non2xx, broken: result.errors + result.timeouts,
}) + "\n");

function rotated(list, by) {
  return [...list.slice(by), ...list.slice(0, by)];
}
