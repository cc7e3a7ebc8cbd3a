#!/bin/sh
# Takes what a gateway pushes, and answers when it has worked on it. Needs socat. Run as: sh push.sh [PORT]
# What was worked on lies in the folder `seen`, a file a message: a message may come twice.
if [ "$1" != connection ]; then
    mkdir -p seen
    exec socat "TCP-LISTEN:${1:-9000},bind=127.0.0.1,reuseaddr,fork,max-children=100" "EXEC:sh $0 connection"
fi

# Your work, with the payload on standard input. When it fails, the message comes again, on the queue's retry schedule.
work() { payload=$(cat) && [ -n "$payload" ] && printf '%s %s\n' "$1" "$payload" >&2; }
answer() { printf 'HTTP/1.1 %s\r\nConnection: close\r\n\r\n' "$1"; exit; }

while IFS= read -r line && line=$(printf '%s' "$line" | tr -d '\r') && [ -n "$line" ]; do
    case $line in
    [Cc]ontent-[Ll]ength:*) length=${line#*: } ;;
    [Ww]ebhook-[Ii]d:*) id=$(printf '%s' "${line#*: }" | tr -cd '0-9a-f-') ;;
    esac
done
if [ -f "seen/$id" ]; then answer '204 No Content'; fi
came=$(mktemp) && trap 'rm -f "$came"' EXIT && head -c "$length" >"$came"
# Less than was announced: the sender went away.
[ "$(wc -c <"$came")" -eq "$length" ] && work "$id" <"$came" && mv "$came" "seen/$id" && answer '204 No Content'
answer '500 Internal Server Error'
