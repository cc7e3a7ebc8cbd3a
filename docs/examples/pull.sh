#!/bin/sh
# Works on the messages of a queue: leases one, works, settles. Needs curl. Run as: sh pull.sh [QUEUE]
leases="${POSTHASTE_URL:-http://127.0.0.1:8080}/v1/queues/${1:-jobs}/leases"

# Your work, with the payload on standard input. When it fails, the message comes again, on the queue's retry schedule.
work() { payload=$(cat) && [ -n "$payload" ] && printf '%s %s\n' "$1" "$payload"; }

# A quotation mark within a string of JSON has a backslash before it, so this finds nothing but the field itself.
field() { printf '%s' "$message" | sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }
post() { curl --silent --show-error --fail --max-time 60 --header 'Content-Type: application/json' --data "$2" "$1"; }

while :; do
    # Waits until there is a message. What is not settled (no gateway, a crash) comes again when its lease ends (30 s).
    if ! message=$(post "$leases" '{"max":1,"wait":"20s","payload_as":"base64"}'); then sleep 1; continue; fi
    receipt=$(field receipt)
    if [ -z "$receipt" ]; then continue; fi
    if field payload_base64 | base64 -d | work "$(field id)"; then
        settlement='{"ack":["'$receipt'"]}'
    else
        settlement='{"retry":[{"receipt":"'$receipt'"}]}'
    fi
    post "$leases/settle" "$settlement" >/dev/null
done
