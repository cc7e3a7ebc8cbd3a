-- Publishes a batch a request, as NDJSON. Start a gateway, then, for 16 connections and 30 seconds:
--   wrk -t2 -c16 -d30s --latency -s benches/wrk/batch.lua http://127.0.0.1:8080
--   wrk -t2 -c16 -d30s --latency -s benches/wrk/batch.lua http://127.0.0.1:8080 -- QUEUE MESSAGES BYTES
-- QUEUE: where to publish (default). MESSAGES: in each batch (100). BYTES: the length of each payload, at least 8 (100).
-- The last line is what counts: what was answered 202. What was still on its way at the end may be in the store as well.

messages = 100

-- The counters of threads are not those of `done`, which runs in a state of its own: it is told through the thread.
function setup(thread)
    first = first or thread
end

function init(arguments)
    local queue = arguments[1] or "default"
    messages = tonumber(arguments[2] or messages)
    local bytes = tonumber(arguments[3] or 100)
    -- {"x":""} is eight bytes.
    local line = string.format('{"x":"%s"}\n', string.rep("x", math.max(bytes - 8, 0)))
    local headers = { ["Content-Type"] = "application/x-ndjson" }
    publish = wrk.format("POST", "/v1/queues/" .. queue .. "/messages/batch", headers, string.rep(line, messages))
end

function request()
    return publish
end

function done(summary, latency, requests)
    local batches = summary.requests - summary.errors.status
    local accepted = batches * first:get("messages")
    local seconds = summary.duration / 1e6
    local refused = summary.errors.status
    print(string.format("accepted: %d messages, %.0f a second; refused: %d batches", accepted, accepted / seconds, refused))
end
