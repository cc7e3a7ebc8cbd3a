"""Starts a gateway and a receiver, rotates a queue's secret, and verifies each delivery with the library for Python.

Usage: deliver.py BINARY DELIVERIES. Writes the deliveries as JSON: headers, body, the secrets that verify it and those that do not.
"""

import base64
import http.server
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from standardwebhooks import Webhook, WebhookVerificationError

WITHIN = 30


class Receiver(http.server.BaseHTTPRequestHandler):
    received = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.put(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def start(binary, folder):
    key = base64.b64encode(os.urandom(32)).decode()
    log = open(os.path.join(folder, "log"), "wb")
    gateway = subprocess.Popen(
        [os.path.abspath(binary), "serve", "--dev", "--listen", "127.0.0.1:0"],
        cwd=folder,
        stderr=log,
        env={**os.environ, "POSTHASTE__SECRETS__MASTER_KEY": key},
    )
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        text = open(os.path.join(folder, "log"), encoding="utf-8", errors="replace").read()
        found = re.search(r"address=(\S+)", text)
        if found:
            return gateway, f"http://{found.group(1)}"
        if gateway.poll() is not None:
            break
        time.sleep(0.01)
    gateway.kill()
    sys.exit(f"the gateway does not listen:\n{text}")


def ask(url, method, path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=WITHIN) as answer:
        return json.load(answer)


def verifies(secret, headers, body):
    try:
        Webhook(secret).verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


def check(name, delivery, good, bad):
    headers, body = delivery
    for secret in good:
        assert verifies(secret, headers, body), f"{name}: not verified"
        assert not verifies(secret, headers, body.replace(b"7", b"8")), f"{name}: a tampered body passed"
        for header in ["webhook-id", "webhook-timestamp", "webhook-signature"]:
            tampered = {**headers, header: headers[header][:-2] + ("11" if headers[header][-2:] != "11" else "22")}
            if header == "webhook-signature":
                tampered[header] = " ".join("v1," + "A" * 43 + "=" for _ in headers[header].split(" "))
            assert not verifies(secret, tampered, body), f"{name}: a tampered {header} passed"
    for secret in bad:
        assert not verifies(secret, headers, body), f"{name}: verified with the wrong secret"
    count = len(headers["webhook-signature"].split(" "))
    print(f"python: {name}: {count} signature(s), verified by {len(good)} secret(s), refused by {len(bad)}")
    body = base64.b64encode(body).decode()
    return {"name": name, "headers": headers, "body": body, "good": good, "bad": bad}


def play(url, receiver):
    def deliver():
        payload = {"order": 7, "text": "gr\u00fc\u00dfe \U0001f4ee", "at": time.time()}
        ask(url, "POST", "/v1/queues/orders/messages", payload)
        return Receiver.received.get(timeout=WITHIN)

    ask(url, "PUT", "/v1/queues/orders", {"processor": "http", "destination": receiver})
    assert "webhook-signature" not in deliver()[0]
    old = ask(url, "POST", "/v1/queues/orders/secret", {})["secret"]
    stranger = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    yield check("before", deliver(), [old], [stranger])
    new = ask(url, "POST", "/v1/queues/orders/secret", {"overlap": "1h"})["secret"]
    yield check("during", deliver(), [old, new], [stranger])
    # The same secret again only lets the one before it end.
    ask(url, "POST", "/v1/queues/orders/secret", {"secret": new, "overlap": "0s"})
    yield check("after", deliver(), [new], [old, stranger])


def main():
    binary, deliveries = sys.argv[1:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        gateway, url = start(binary, folder)
        try:
            found = list(play(url, f"http://127.0.0.1:{server.server_port}/hook"))
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(WITHIN)
    with open(deliveries, "w", encoding="utf-8") as file:
        json.dump(found, file)


main()
