# Takes what a gateway pushes, and answers when it has worked on it. Run as: python3 push.py [PORT]
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What was worked on: a message may come twice. Keep it with your data, written in one transaction with your work:
# this set is forgotten when the process ends.
seen = set()

def work(message_id, body):  # Your work. When it raises, the message comes again, on the queue's retry schedule.
    print(f"{message_id} {json.loads(body)}\n", end="", flush=True)

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            message_id, length = self.headers["webhook-id"], int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionError("the sender went away")
            if message_id not in seen:
                work(message_id, body)
                seen.add(message_id)
            self.send_response(204)
            self.end_headers()
        except Exception as error:
            self.send_error(500, explain=str(error))

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Receiver).serve_forever()
