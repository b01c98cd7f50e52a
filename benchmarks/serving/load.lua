-- Sends the lines of the file BODIES in turn, or plain GETs without it; prints one line of JSON.
local file, sent, turn = os.getenv("BODIES"), {}, 0

function init()
  if file then
    for line in io.lines(file) do
      sent[#sent + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, line)
    end
  else
    sent[1] = wrk.format()
  end
end

function request()
  turn = turn % #sent + 1
  return sent[turn]
end

function done(summary, latency)
  local bad = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    bad.connect + bad.read + bad.write + bad.status + bad.timeout))
end
