-- Sends the requests of the file in REQUESTS, and prints one line of JSON.
-- The file: method, path, headers as name=value separated by \2, and body, separated by \1; one request per line.
-- Without ONCE, in a loop from a random one on. With ONCE, each at most once: the run ends when none is left.
local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int pid, int signal);")
local SIGINT = 2
local requests, number, is_once = {}, 0, os.getenv("ONCE") == "1"

function init()
  math.randomseed(ffi.C.getpid())
  for line in io.lines(os.getenv("REQUESTS")) do
    local method, path, headers, body = line:match("^([^\1]*)\1([^\1]*)\1([^\1]*)\1(.*)$")
    local lines = { method .. " " .. path .. " HTTP/1.1", "Host: " .. wrk.headers["Host"] }
    for name, value in headers:gmatch("([^=\2]+)=([^\2]*)") do lines[#lines + 1] = name .. ": " .. value end
    if body ~= "" then lines[#lines + 1] = "content-length: " .. #body end
    requests[#requests + 1] = table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
  end
  if not is_once then number = math.random(#requests) end
end

function request()
  number = number + 1
  if number > #requests then
    number = 1
    if is_once then
      -- SIGINT ends wrk's main thread, which measures the duration; stop() ends this one at once.
      ffi.C.kill(ffi.C.getpid(), SIGINT)
      wrk.thread:stop()
    end
  end
  return requests[number]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "other": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
