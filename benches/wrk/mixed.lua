-- Publishes one message a request, of mixed sizes: of a hundred 70 have 256 bytes, 20 4 KiB, 9 16 KiB, and one has 256 KiB.
-- Start a gateway, then, for 64 connections and 30 seconds:
--   wrk -t2 -c64 -d30s --latency -s benches/wrk/mixed.lua http://127.0.0.1:8080
--   wrk -t2 -c64 -d30s --latency -s benches/wrk/mixed.lua http://127.0.0.1:8080 -- QUEUE
-- QUEUE: where to publish (default).
-- The last line is what counts: what was answered 202. What was still on its way at the end may be in the store as well.

-- Bytes of a payload, and how many of a hundred have them.
local sizes = { { 256, 70 }, { 4096, 20 }, { 16384, 9 }, { 262144, 1 } }
local threads = 0

-- Threads begin at different places of the hundred, so that the large ones do not all come at once.
function setup(thread)
    thread:set("place", threads * 37)
    threads = threads + 1
end

function init(arguments)
    local queue = arguments[1] or "default"
    local headers = { ["Content-Type"] = "application/octet-stream" }
    publishes = {}
    for _, size in ipairs(sizes) do
        local publish = wrk.format("POST", "/v1/queues/" .. queue .. "/messages", headers, string.rep("x", size[1]))
        for _ = 1, size[2] do
            table.insert(publishes, publish)
        end
    end
end

function request()
    -- Steps of 63 meet each of the hundred once, and spread the sizes.
    place = (place + 63) % 100
    return publishes[place + 1]
end

function done(summary, latency, requests)
    local accepted = summary.requests - summary.errors.status
    local seconds = summary.duration / 1e6
    local refused = summary.errors.status
    print(string.format("accepted: %d messages, %.0f a second; refused: %d", accepted, accepted / seconds, refused))
end
