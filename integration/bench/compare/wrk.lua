-- Prints what came of a run of wrk as one line of JSON; with an argument, spreads the requests over so many routes.
local requests, at, step = {}, 0, 7919

function init(args)
  local routes = tonumber(args[1] or 0)
  if routes > 0 then
    for n = 0, routes - 1 do
      requests[n] = wrk.format("GET", n % 2 == 0 and ("/exact/" .. n) or ("/tree/" .. n .. "/leaf"))
    end
    -- A prime step visits all of them, and never neighbours in turn.
    request = function()
      at = (at + step) % routes
      return requests[at]
    end
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"first_error":"connect %d, read %d, write %d, status %d, timeout %d",',
    summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    e.connect, e.read, e.write, e.status, e.timeout))
  io.write(string.format('"p50_ms":%.4f,"p99_ms":%.4f,"p999_ms":%.4f}\n',
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
