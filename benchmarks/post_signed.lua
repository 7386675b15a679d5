-- wrk posts the lines of a file, each a signature, a blank and the body it signs; benchmarks/accept.py writes it.
local requests, sent = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local signature, body = line:match("^(%x+) (.*)$")
    local headers = { ["Content-Type"] = "application/json", ["X-Webhook-Signature"] = signature }
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.3f, "p50_ms": %.2f, "p95_ms": %.2f, "p99_ms": %.2f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
