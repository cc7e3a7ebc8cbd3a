# Works on the messages of a queue: leases them, works, settles. Run as: python3 pull.py [QUEUE]
import base64, json, os, sys, time, urllib.request

GATEWAY = os.environ.get("POSTHASTE_URL", "http://127.0.0.1:8080")
LEASES = f"{GATEWAY}/v1/queues/{sys.argv[1] if len(sys.argv) > 1 else 'jobs'}/leases"

def work(message):  # Your work. When it raises, the message comes again, on the queue's retry schedule.
    print(message["id"], json.loads(base64.b64decode(message["payload_base64"])), flush=True)

def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)

while True:
    try:  # Waits until there are messages. All that come have to be worked on within the queue's `lease` (30 s).
        for message in post(LEASES, {"max": 10, "wait": "20s", "payload_as": "base64"})["items"]:
            try:
                work(message)
                settlement = {"ack": [message["receipt"]]}
            except Exception as error:
                settlement = {"retry": [{"receipt": message["receipt"], "reason": str(error)[:200]}]}
            post(LEASES + "/settle", settlement)
    except Exception as error:  # No gateway. What was not settled comes again when its lease ends.
        print(error, file=sys.stderr)
        time.sleep(1)
