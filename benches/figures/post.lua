-- Posts the same message again and again, with wrk, for benches/figures: wrk … -s post.lua URL -- BODY_FILE COUNT [PATH]
-- BODY_FILE: the message. COUNT: over how many queues, bench-0, bench-1, …, it is spread; 0: all to the path of the URL.
-- PATH: where to post instead. The last line that it prints is JSON.

local threads = {}
local turn = 0

function setup(thread)
    table.insert(threads, thread)
end

function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    local body = file:read("*a")
    file:close()
    local count = tonumber(arguments[2])
    local headers = { ["Content-Type"] = "application/json" }
    posts = {}
    for number = 0, math.max(count, 1) - 1 do
        local path = arguments[3]
        if count > 0 then
            path = "/v1/queues/bench-" .. number .. "/messages"
        end
        table.insert(posts, wrk.format("POST", path, headers, body))
    end
end

-- In steps without a common divisor with any round number, so that no two messages in a row are neighbours.
function request()
    turn = (turn + 7919) % #posts
    return posts[turn + 1]
end

function done(summary, latency, requests)
    local errors = summary.errors
    local fields = {
        string.format('"requests": %d', summary.requests),
        string.format('"seconds": %.6f', summary.duration / 1e6),
        string.format('"refused": %d', errors.status),
        string.format('"broken": %d', errors.connect + errors.read + errors.write + errors.timeout),
        string.format('"p50_us": %d', latency:percentile(50)),
        string.format('"p99_us": %d', latency:percentile(99)),
    }
    print("{" .. table.concat(fields, ", ") .. "}")
end
