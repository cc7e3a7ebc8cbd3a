"""What is measured with: builds of this checkout, the peers, and their versions."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

from machine import CACHE, PACKAGES, ROOT, Failed, Missing, need, output

PEERS = ROOT / "benches" / "peers"
NODE = CACHE / "node"
REDIGO = CACHE / "redigo"
INSTALL = "python3 benches/figures --install"
# Where Debian puts the sources of its Go libraries: nothing is fetched.
GO_PATH = "/usr/share/gocode"


@dataclasses.dataclass
class Tools:
    """Programs of this checkout."""

    posthaste: pathlib.Path
    bare: pathlib.Path
    path: pathlib.Path


def build(posthaste, bare, path):
    """Builds what was not given, as it is released."""
    environment = {**os.environ, "CARGO_TERM_PROGRESS_WHEN": "never"}
    run = lambda *words: subprocess.run(["cargo", *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False)
    if posthaste is None:
        print("building the release", file=sys.stderr)
        if run("build", "--release", "--locked").returncode != 0:
            raise Failed("cargo build --release --locked")
        posthaste = target_folder() / "release" / "posthaste"
    found = {"bare": bare, "path": path}
    absent = [name for name, given in found.items() if given is None]
    if absent:
        print("building the yardstick and the bare loops", file=sys.stderr)
        words = [word for name in absent for word in ("--bench", name)]
        built = run("bench", "--no-run", "--locked", "--message-format", "json-render-diagnostics", *words)
        if built.returncode != 0:
            raise Failed("cargo bench --no-run")
        for line in built.stdout.splitlines():
            message = json.loads(line)
            name = message.get("target", {}).get("name")
            if message.get("executable") and name in absent:
                found[name] = message["executable"]
    return Tools(*(pathlib.Path(one).resolve() for one in (posthaste, found["bare"], found["path"])))


def target_folder():
    metadata = output(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT)
    return pathlib.Path(json.loads(metadata)["target_directory"])


def node_script(name):
    """A script beside the packages that it uses."""
    need("node")
    if not (NODE / "node_modules" / "bullmq").is_dir():
        raise Missing(f"{INSTALL}  (npm install in {NODE.relative_to(ROOT)})")
    shutil.copy(PEERS / "node" / name, NODE / name)
    return NODE / name


def redigo():
    """The gateway in Go, built once for each text of it."""
    source = PEERS / "go" / "main.go"
    if not REDIGO.exists() or REDIGO.stat().st_mtime < source.stat().st_mtime:
        program = need("go")
        if not pathlib.Path(GO_PATH, "src/github.com/gomodule/redigo").is_dir():
            raise Missing(f"apt-get install {' '.join(PACKAGES['go'])}")
        CACHE.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH}
        output([program, "build", "-o", REDIGO, source], env=environment, timeout=600)
    return REDIGO


def install():
    """Installs what is missing: Debian's packages, and those of Node.js into the folder for builds."""
    lacking = []
    for program, packages in PACKAGES.items():
        try:
            need(program)
        except Missing:
            lacking += packages
    libraries = {"golang-github-gomodule-redigo-dev": f"{GO_PATH}/src/github.com/gomodule/redigo"}
    libraries["lua-nginx-redis"] = "/usr/share/lua/5.1/nginx/redis.lua"
    lacking += [package for package, path in libraries.items() if not pathlib.Path(path).exists() and package not in lacking]
    if lacking:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["apt-get", "update"], ["apt-get", "install", "-y", *lacking]):
            print(" ".join(words), file=sys.stderr)
            subprocess.run(words, env=environment, stdout=sys.stderr, check=True)
    NODE.mkdir(parents=True, exist_ok=True)
    shutil.copy(PEERS / "node" / "package.json", NODE)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=NODE, stdout=sys.stderr, check=True)


def versions(tools):
    """What everything is, by name; what is not there is said to be missing."""

    def said(*words):
        try:
            done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "missing"
        return (done.stdout + done.stderr).strip().splitlines()[0].strip()

    found = {"machine": machine(), "system": f"{platform.system()} {platform.release()}", "disk": disk()}
    commit = said("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    found["posthaste"] = f"{said(str(tools.posthaste), '--version')} ({commit})"
    found["rustc"] = said("rustc", "--version")
    found["redis-server"] = said("redis-server", "--version")
    # It has no flag for it: any word that it is given is the name of its configuration.
    found["webdis"] = said("dpkg-query", "-W", "-f", "${Version}", "webdis") if shutil.which("webdis") else "missing"
    found["wrk"] = said("wrk", "-v")
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    found["nginx"] = said(nginx, "-v") if nginx else "missing"
    found["go"] = said("go", "version")
    found["redigo"] = said("dpkg-query", "-W", "-f", "${Version}", "golang-github-gomodule-redigo-dev")
    found["node"] = said("node", "--version")
    for package in ("fastify", "ioredis", "bullmq"):
        found[package] = "missing"
        with contextlib.suppress(OSError):
            text = (NODE / "node_modules" / package / "package.json").read_text()
            found[package] = json.loads(text)["version"]
    found["python"] = platform.python_version()
    return found


def machine():
    model = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    with contextlib.suppress(OSError):
        load = ", load average before " + pathlib.Path("/proc/loadavg").read_text().split()[0]
        return f"{model}, {os.cpu_count()} cores{load}"
    return f"{model}, {os.cpu_count()} cores"


def disk():
    """The file system on which everything is written, and a warning where that is none of a disk."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kind, length = "unknown", -1
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/mounts").read_text().splitlines():
            where, named = line.split()[1:3]
            if CACHE.is_relative_to(where) and len(where) > length:
                kind, length = named, len(where)
    return f"{kind}: in memory, an fsync costs nothing here" if kind in ("tmpfs", "ramfs") else kind
