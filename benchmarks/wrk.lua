-- Sends the requests of the file in REQUESTS in a loop, and prints one line of JSON.
-- The file: method, path, headers as name=value separated by \2, and body, separated by \1; one request per line.
local requests, number = {}, 0

function init()
  for line in io.lines(os.getenv("REQUESTS")) do
    local method, path, headers, body = line:match("^([^\1]*)\1([^\1]*)\1([^\1]*)\1(.*)$")
    local lines = { method .. " " .. path .. " HTTP/1.1", "Host: " .. wrk.headers["Host"] }
    for name, value in headers:gmatch("([^=\2]+)=([^\2]*)") do lines[#lines + 1] = name .. ": " .. value end
    if body ~= "" then lines[#lines + 1] = "content-length: " .. #body end
    requests[#requests + 1] = table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
  end
  number = math.random(#requests)
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "other": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
