"""What is measured: the gateway over each store, the yardstick, and the peers; each started anew, with nothing in it."""

import contextlib
import http.client
import json

import machine
import tools
from machine import FSYNC, Failed, Process, Redis, free_port, need

QUEUE = "bench"
PUBLISH = f"/v1/queues/{QUEUE}/messages"
# A queue with room for everything.
ROOM = {"length_max": 1_000_000_000, "bytes_max": "1TiB", "payload_max": "16MiB"}
WHAT_SQLITE_IS = {"FULL": "strict", "relaxed": "relaxed"}


class Subject:
    """A server that takes messages, with the Redis behind it if it has one."""

    def __init__(self, server, redis=None):
        self.server, self.redis = server, redis

    def cpu_s(self):
        return self.server.cpu_s(), self.redis.cpu_s() if self.redis else 0.0

    def url(self, path=PUBLISH):
        return f"http://127.0.0.1:{self.server.port}{path}"


class Gateway(Subject):
    """The gateway, with calls to its API over one connection."""

    def __init__(self, server, redis=None):
        super().__init__(server, redis)
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)

    def ask(self, method, path, body=None, kind="application/json"):
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        self.connection.request(method, path, data, {"Content-Type": kind} if data is not None else {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text) if text else {}

    def make_queue(self, name=QUEUE, **settings):
        self.ask("PUT", f"/v1/queues/{name}", {"processor": "pull", "limits": ROOM, **settings})

    def fill(self, messages, payload_bytes, name=QUEUE):
        """Publishes so many in batches."""
        batch = 1_000
        line = b'"' + b"x" * (payload_bytes - 2) + b'"\n'
        for begun in range(0, messages, batch):
            body = line * min(batch, messages - begun)
            self.ask("POST", f"/v1/queues/{name}/messages/batch", body, "application/x-ndjson")

    def counts(self, name=QUEUE):
        return self.ask("GET", f"/status?queue={name}")["queues"][0]

    def is_ready(self):
        with contextlib.suppress(OSError, Failed, http.client.HTTPException):
            return self.ask("GET", "/ready") is not None
        self.connection.close()
        return False


@contextlib.contextmanager
def gateway(program, store, durability, settings=()):
    """A gateway over `redis`, `sqlite` or `memory`, ready, with the queue `bench` that keeps what it is given."""
    with machine.folder() as folder, contextlib.ExitStack() as ending:
        redis = None
        if store == "redis":
            redis = ending.enter_context(Redis(folder, durability))
            url, promise = redis.url, FSYNC[durability][1]
        elif store == "sqlite":
            url, promise = "sqlite:bench.db", WHAT_SQLITE_IS[durability]
        else:
            url, promise = "memory:", "none"
        port = free_port()
        command = [program, "serve", "--listen", f"127.0.0.1:{port}", "--store", url, "--durability", promise]
        for setting in ('egress.allow=["127.0.0.0/8"]', *settings):
            command += ["--set", setting]
        server = ending.enter_context(Process("posthaste", command, folder, port))
        found = Gateway(server, redis)
        server.wait_until(found.is_ready, "become ready")
        found.make_queue()
        yield found


@contextlib.contextmanager
def bare(program):
    """The yardstick."""
    with machine.folder() as folder:
        port = free_port()
        with Process("bare", [program, port], folder, port) as server:
            yield Subject(server)


def webdis(folder, port, redis_port):
    settings = {
        "redis_host": "127.0.0.1",
        "redis_port": redis_port,
        "http_host": "127.0.0.1",
        "http_port": port,
        "threads": 2,
        "pool_size": 10,
        "daemonize": False,
        "websockets": False,
        "database": 0,
        "verbosity": 0,
        "logfile": str(folder / "webdis.out"),
    }
    (folder / "webdis.json").write_text(json.dumps(settings))
    return [need("webdis"), folder / "webdis.json"]


NGINX = """
include /etc/nginx/modules-enabled/*.conf;
daemon off; worker_processes 2; pid %(folder)s/nginx.pid; error_log %(folder)s/nginx.err;
events { worker_connections 8192; }
http {
  access_log off; client_body_buffer_size 256k;
  client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/fastcgi;
  uwsgi_temp_path %(folder)s/uwsgi; scgi_temp_path %(folder)s/scgi;
  lua_package_path "/usr/share/lua/5.1/?.lua;;";
  server {
    listen 127.0.0.1:%(port)d;
    location / { content_by_lua_block {
      local client = require "nginx.redis"
      ngx.req.read_body()
      local redis = client:new()
      local is_connected, problem = redis:connect("127.0.0.1", %(redis_port)d)
      if not is_connected then ngx.status = 503 ngx.say(problem) return end
      local is_pushed, problem = redis:lpush("messages", ngx.req.get_body_data())
      if not is_pushed then ngx.status = 503 ngx.say(problem) return end
      redis:set_keepalive(10000, 64)
      ngx.status = 202
      ngx.header["Content-Type"] = "application/json"
      ngx.say('{"id":"', ngx.var.request_id, '"}')
    } }
  }
}
"""


def nginx(folder, port, redis_port):
    text = NGINX % {"folder": folder, "port": port, "redis_port": redis_port}
    (folder / "nginx.conf").write_text(text)
    return [need("nginx"), "-c", folder / "nginx.conf"]


def redigo(_, port, redis_port):
    return [tools.redigo(), port, redis_port]


def fastify(_, port, redis_port):
    return [need("node"), tools.node_script("fastify_ioredis.js"), port, redis_port]


def bullmq(_, port, redis_port):
    return [need("node"), tools.node_script("fastify_bullmq.js"), port, redis_port]


# How each peer is started, by the name it has in the tables.
PEERS = {"webdis": webdis, "nginx+Lua": nginx, "Go+redigo": redigo, "Fastify+ioredis": fastify, "Fastify+BullMQ": bullmq}


@contextlib.contextmanager
def peer(name, durability):
    """One of the peers, with a Redis of its own."""
    with machine.folder() as folder:
        with Redis(folder, durability) as redis:
            port = free_port()
            command = PEERS[name](folder, port, redis.port)
            with Process(name, command, folder, port) as server:
                yield Subject(server, redis)


@contextlib.contextmanager
def redis_alone(durability):
    """A Redis for what starts a gateway of its own."""
    with machine.folder() as folder:
        with Redis(folder, durability) as redis:
            yield redis
