-- Publishes one message a request. Start a gateway, then, for 64 connections and 30 seconds:
--   wrk -t2 -c64 -d30s --latency -s benches/wrk/single.lua http://127.0.0.1:8080
--   wrk -t2 -c64 -d30s --latency -s benches/wrk/single.lua http://127.0.0.1:8080 -- QUEUE BYTES
-- QUEUE: where to publish (default). BYTES: the length of each payload (100).
-- The last line is what counts: what was answered 202. What was still on its way at the end may be in the store as well.

function init(arguments)
    local queue = arguments[1] or "default"
    local bytes = tonumber(arguments[2] or 100)
    local headers = { ["Content-Type"] = "application/octet-stream" }
    -- One text for all requests: what is measured is the gateway, not Lua.
    publish = wrk.format("POST", "/v1/queues/" .. queue .. "/messages", headers, string.rep("x", bytes))
end

function request()
    return publish
end

function done(summary, latency, requests)
    local accepted = summary.requests - summary.errors.status
    local seconds = summary.duration / 1e6
    local refused = summary.errors.status
    print(string.format("accepted: %d messages, %.0f a second; refused: %d", accepted, accepted / seconds, refused))
end
