"""Processes of this machine: starting and ending them, what they use, and a Redis of one's own."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "target" / "figures"
READY_WITHIN_S = 30
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """Something that is not installed, with the line that would install it."""


class Failed(Exception):
    """Something that did not go as it should: what was measured is worth nothing."""


def free_port():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


@contextlib.contextmanager
def folder():
    """A folder on the disk of the checkout: that for temporary files may be in memory, where an fsync costs nothing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Process:
    """A program that runs, in a group of its own; its output goes to a file."""

    def __init__(self, name, command, folder, port=None):
        self.name, self.port, self.log = name, port, folder / f"{name}.log"
        try:
            with open(self.log, "wb") as log:
                self.child = subprocess.Popen(
                    [str(word) for word in command],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise Failed(f"{name} does not start: {error}") from error
        if port is not None:
            try:
                self.wait_until(lambda: is_open(port), "listen")
            except Failed:
                self.end()
                raise

    def wait_until(self, is_so, word):
        deadline = time.monotonic() + READY_WITHIN_S
        while not is_so():
            if self.child.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-2000:]
                raise Failed(f"{self.name} does not {word}: {said}")
            time.sleep(0.02)

    def pids(self):
        """Its own id and those of its children: servers that fork do their work there."""
        found, left = [], [self.child.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    left += [int(child) for child in task.read_text().split()]
        return found

    def cpu_s(self):
        """Processor time of all its threads and children, also of those that ended."""
        used = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # The clock of another process, as clock_getcpuclockid(3) gives it: in nanoseconds, where /proc has hundredths.
                used += time.clock_gettime((~pid << 3) | 2)
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                used += (int(fields[13]) + int(fields[14])) / TICKS_PER_S
        return used

    def memory_mb(self):
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        total += int(line.split()[1])
        return total * 1024 / 1e6

    def end(self):
        """SIGTERM, and SIGKILL where that does not help; waits until it is gone."""
        for word in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, word)
            try:
                self.child.wait(10)
                return
            except subprocess.TimeoutExpired:
                continue

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def is_open(port):
    with socket.socket() as own:
        own.settimeout(0.5)
        return own.connect_ex(("127.0.0.1", port)) == 0


# What each word of durability is in Redis, and what the gateway is then asked for.
FSYNC = {
    "no fsync": (["--appendonly", "no"], "relaxed"),
    "everysec": (["--appendonly", "yes", "--appendfsync", "everysec"], "relaxed"),
    "always": (["--appendonly", "yes", "--appendfsync", "always"], "strict"),
}


class Redis(Process):
    """A redis-server of its own, with nothing in it."""

    def __init__(self, folder, durability):
        port = free_port()
        words = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder, "--maxmemory-policy", "noeviction"]
        super().__init__("redis-server", [need("redis-server"), *words, *FSYNC[durability][0]], folder, port)
        self.url = f"redis://127.0.0.1:{port}/0"

    def info(self, section):
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(f"INFO {section}\r\n".encode())
            with connection.makefile("rb") as answer:
                length = int(answer.readline()[1:])
                text = answer.read(length).decode()
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return dict(pairs)


# The packages in which programs are, by the names of Debian.
PACKAGES = {
    "redis-server": ["redis-server"],
    "wrk": ["wrk"],
    "webdis": ["webdis"],
    "nginx": ["nginx", "libnginx-mod-http-lua", "lua-nginx-redis"],
    "go": ["golang-go", "golang-github-gomodule-redigo-dev"],
    "node": ["nodejs", "npm"],
}


def need(program):
    """Where a program is; who lacks it is told how to get it."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"apt-get install {' '.join(PACKAGES[program])}")
    return path


def output(command, **options):
    """What a program prints; Failed where it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{words[0]}: {error}") from error
    if done.returncode != 0:
        raise Failed(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def last_json(text, who):
    """The last line that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Failed(f"{who} printed no figures: {text[-500:]}")
