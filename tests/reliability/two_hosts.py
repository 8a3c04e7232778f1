"""Two hosts that share a folder by sshfs put and consume files in it, and are killed at random.

The hosts are namespaces of this machine (network, mount, uts, pid), joined by a pair of virtual
Ethernet devices: `server` has the folder on its disk, and an sshd; `client` mounts it with sshfs,
and its consumers live in a container that is killed whole and starts again under the same name.
Needs root, `ip`, `unshare`, `nsenter`, `sshd` and `sshfs`.

After it: each file was done exactly once. Besides: how long a `get` that waits takes to be told
of a file that the other host has put.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from queue import Empty
from typing import IO

import persistq
from persistq import ReadableFolderQueue, WritableFolderQueue

SSHD = "/usr/sbin/sshd"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
START_LIMIT_S = 20
LIMIT_S = 240
OPTIONS = "dir_cache=no"


def what_is_missing() -> str:
    """Return why this cannot run here; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux, and root"
    for command in ("ip", "unshare", "nsenter", "sshfs", "ssh-keygen"):
        if shutil.which(command) is None:
            return f"needs {command}"
    for path in (SSHD, SFTP_SERVER, "/dev/fuse"):
        if not os.path.exists(path):
            return f"needs {path}"
    tried = subprocess.run(["unshare", "-n", "-m", "-u", "-p", "-f", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "may not make namespaces here"


class Host:
    """Namespaces that live as long as this object; `enter` is the command that runs others there.

    Args:
        name (str): The host's name.
    """

    def __init__(self, name: str) -> None:
        flags = ["-n", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc"]
        script = f"hostname {name}; ip link set lo up; echo up; exec sleep infinity"
        self._process = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"
        children = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        self.pid = int(Path(children).read_text().split()[0])
        self.enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p", "--"]

    def run(self, script: str) -> None:
        ended = subprocess.run(
            [*self.enter, "sh", "-ec", script], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def start(self, *command: str, out: IO[str] | int | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen([*self.enter, *command], stdout=out, text=True)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Pair:
    """Both hosts, with the folder `share` on the one, and seen as `seen` on the other."""

    def __init__(self, root: Path, options: str) -> None:
        self.share, self.seen = root / "share", root / "seen"
        for path in (self.share, self.seen, root / "ssh"):
            path.mkdir()
        (self.share / "done").mkdir()
        self.server, self.client = Host("server"), Host("client")
        self._sshd: subprocess.Popen[str] | None = None
        try:
            self._connect()
            self._serve(root / "ssh")
            self._mount(root / "ssh", options)
        except BaseException:
            self.end()
            raise

    def _connect(self) -> None:
        ours = f"pq{os.getpid() % 10**6}"
        subprocess.run(
            [
                *("ip", "link", "add", f"{ours}s", "netns", str(self.server.pid)),
                *("type", "veth", "peer", "name", f"{ours}c", "netns", str(self.client.pid)),
            ],
            check=True,
        )
        for host, end, address in ((self.server, "s", 1), (self.client, "c", 2)):
            host.run(
                f"ip addr add 10.77.0.{address}/24 dev {ours}{end}; ip link set {ours}{end} up"
            )

    def _serve(self, keys: Path) -> None:
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True
            )
        (keys / "config").write_text(
            f"Port 22\nListenAddress 10.77.0.1\nHostKey {keys}/host\nPidFile none\n"
            f"AuthorizedKeysFile {keys}/user.pub\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp {SFTP_SERVER}\n"
        )
        self.server.run("mount -t tmpfs none /run; mkdir -p /run/sshd")
        self._sshd = self.server.start(SSHD, "-D", "-f", str(keys / "config"))

    def _mount(self, keys: Path, options: str) -> None:
        ssh = f"IdentityFile={keys}/user,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null"
        self._ssh = f"ssh -F /dev/null -o {ssh.replace(',', ' -o ')}"
        more = f",{options}" if options else ""
        mount = f"sshfs -F /dev/null -o {ssh}{more} root@10.77.0.1:{self.share} {self.seen}"
        # It has the folder by the network alone; and the server may take a moment.
        self.client.run(
            f"for n in $(seq 50); do {mount} && break; sleep 0.1; done; "
            f"mount -t tmpfs none {self.share}; ls {self.seen}/done"
        )

    def probe(self) -> dict[str, object]:
        """Return what sshfs carries, as the client finds it."""
        program = str(Path(__file__).with_name("probe_file_system.py"))
        command = [*python(), program, str(self.seen), "--seen-as", str(self.share)]
        ended = subprocess.run(
            [*self.client.enter, *command, "--by", f"{self._ssh} root@10.77.0.1"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        found: dict[str, object] = json.loads(ended.stdout)
        return found

    def end(self) -> None:
        self.client.end()
        if self._sshd is not None:
            self._sshd.kill()
            self._sshd.wait()
        self.server.end()


# --- what runs on the hosts -------------------------------------------------------------------


def note(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def produce(folder: str, root: str, name: str, number: int) -> None:
    """Put so many files, each once, however often this is killed and started again."""
    queue = WritableFolderQueue(folder, announce=False)
    log = f"{root}/put-{name}"
    begun = Path(log).read_text().split() if os.path.exists(log) else []
    source = f"{root}/{name}.tsv"
    for index in range(number):
        stem = f"{name}-{index}"
        if stem in begun[:-1]:
            continue
        if begun and stem == begun[-1] and is_there(folder, stem):
            continue  # killed when it had just been put
        if stem not in begun:
            note(log, stem)
        Path(source).write_text(stem)
        os.rename(source, f"{root}/{stem}.tsv")
        queue.put(f"{root}/{stem}.tsv")


def is_there(folder: str, stem: str) -> bool:
    """Tell whether a file waits, is in hand, or is done; in the order in which it goes."""
    for _ in range(2):
        names = [*os.listdir(folder), *os.listdir(f"{folder}/done")]
        if any(name == f"{stem}.tsv" or name.endswith(f"_{stem}.wip") for name in names):
            return True
    return False


def consume(folder: str, root: str, name: str) -> None:
    """Do files until this is killed."""
    queue = ReadableFolderQueue(folder, task_done_directory=f"{folder}/done", forever=True)
    while True:
        try:
            path = queue.get(timeout=300)
        except Empty:
            queue.reclaim_abandoned()
            continue
        stem = Path(str(path)).read_text()
        queue.task_done(path)
        note(f"{root}/done-{name}", stem)


def wait(folder: str, number: int) -> None:
    """Say how long each of so many files took to arrive, in seconds."""
    queue = ReadableFolderQueue(folder, forever=True)
    print("waits", flush=True)
    for _ in range(number):
        path = str(queue.get(timeout=60_000))
        now_s = time.monotonic()
        print(now_s - float(Path(path).read_text()), flush=True)
        queue.task_done(path)


def put_now(folder: str, root: str, name: str) -> None:
    queue = WritableFolderQueue(folder, announce=False)
    for line in sys.stdin:
        path = f"{root}/{line.strip()}.tsv"
        Path(path).write_text(str(time.monotonic()))  # one kernel, one clock
        queue.put(path)


# --- what is done with them -------------------------------------------------------------------


def python() -> list[str]:
    return ["env", f"PYTHONPATH={Path(persistq.__file__).parents[1]}", sys.executable]


def command(root: Path, *arguments: str) -> list[str]:
    return [*python(), __file__, "--root", str(root), "--on-host", *arguments]


def delays(pair: Pair, root: Path, waits_at: Host, number: int) -> list[float]:
    """Return how long a waiting get at one host takes to have what the other has put."""
    there = pair.client if waits_at is pair.server else pair.server
    folder = {pair.server: str(pair.share), pair.client: str(pair.seen)}
    waiter = waits_at.start(
        *command(root, "wait", folder[waits_at], str(number)), out=subprocess.PIPE
    )
    putter = subprocess.Popen(
        [*there.enter, *command(root, "put", folder[there], f"now-{waits_at is pair.server}")],
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiter.stdout is not None
        assert putter.stdin is not None
        assert waiter.stdout.readline() == "waits\n"
        found = []
        for index in range(number):
            time.sleep(0.3 + random.random() / 3)  # so that it has settled to waiting
            putter.stdin.write(f"now-{waits_at is pair.server}-{index}\n")
            putter.stdin.flush()
            found.append(float(waiter.stdout.readline()))
        return found
    finally:
        for process in (waiter, putter):
            process.kill()
            process.communicate()


def storm(pair: Pair, root: Path, options: argparse.Namespace) -> dict[str, object]:
    rng = random.Random(options.seed)
    half = options.files // 2
    found: Counter[str] = Counter()
    container = ["unshare", "-u", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c"]
    container += ['hostname loader-0; "$@" & "$@" & wait', "container"]
    at_server = str(pair.share)
    starts = {
        "producer of server": lambda: pair.server.start(
            *command(root, "produce", at_server, "server", str(half))
        ),
        "producer of client": lambda: pair.client.start(
            *command(root, "produce", str(pair.seen), "client", str(half))
        ),
        "consumer 1 of server": lambda: pair.server.start(
            *command(root, "consume", at_server, "server-1")
        ),
        "consumer 2 of server": lambda: pair.server.start(
            *command(root, "consume", at_server, "server-2")
        ),
        "container of client": lambda: pair.client.start(
            *container, *command(root, "consume", str(pair.seen), "client")
        ),
    }
    running = {name: start() for name, start in starts.items()}
    began_s = time.monotonic()
    try:
        while len(os.listdir(pair.share / "done")) < 2 * half:
            if time.monotonic() - began_s > LIMIT_S:
                found["hangs"] += 1
                break
            time.sleep(rng.uniform(0.05, options.longest_s))
            for name, process in running.items():
                if process.poll() is not None and process.returncode != 0:
                    running[name] = starts[name]()
            victims = [name for name, process in running.items() if process.poll() is None]
            if found["kills"] < options.kills and victims:
                victim = rng.choice(victims)
                kill_below(running[victim])
                running[victim].wait()
                running[victim] = starts[victim]()
                found["kills"] += 1
                found[f"{victim} killed"] += 1
    finally:
        for process in running.values():
            kill_below(process)
            process.wait()
    stems = [f"{host}-{n}" for host in ("server", "client") for n in range(half)]
    done = Counter(name[: -len(".tsv")] for name in os.listdir(pair.share / "done"))
    reported = Counter(stem for path in root.glob("done-*") for stem in path.read_text().split())
    left = [name for name in os.listdir(pair.share) if name.endswith((".tsv", ".wip"))]
    return {
        **found,
        "files": 2 * half,
        "lost": len(set(stems) - done.keys()),
        "strange": len(done.keys() - set(stems)),
        "twice": sum(reported.values()) - len(reported),
        "left": len(left),
        "seconds": round(time.monotonic() - began_s, 1),
    }


def kill_below(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it has started: nsenter forks into the other namespace."""
    below, todo = [], [process.pid]
    while todo:
        pid = todo.pop()
        below.append(pid)
        try:
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            pass
    for pid in reversed(below):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=2000, help="half of them from each host")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--longest-s", type=float, default=0.8, help="before a kill, in seconds")
    parser.add_argument("--waits", type=int, default=20, help="how often to measure a waiting get")
    parser.add_argument("--options", default=OPTIONS, help=f"of sshfs (default {OPTIONS})")
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--on-host", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on_host:
        what, *rest = options.on_host
        if what == "produce":
            produce(rest[0], options.root, rest[1], int(rest[2]))
        elif what == "consume":
            consume(rest[0], options.root, rest[1])
        elif what == "wait":
            wait(rest[0], int(rest[1]))
        else:
            put_now(rest[0], options.root, rest[1])
        return 0
    missing = what_is_missing()
    if missing:
        print(json.dumps({"skipped": missing}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pair = Pair(root, options.options)
        try:
            told: dict[str, object] = {"sshfs": pair.probe()}
            for name, host in (("server", pair.server), ("client", pair.client)):
                if options.waits:
                    seconds = delays(pair, root, host, options.waits)
                    told[f"{name} is told after s"] = {
                        "median": round(statistics.median(seconds), 3),
                        "longest": round(max(seconds), 3),
                    }
            found = storm(pair, root, options) if options.files else {"lost": 0}
        finally:
            pair.end()
    print(json.dumps({**told, **found}))
    return (
        1 if any(found.get(name) for name in ("hangs", "lost", "strange", "twice", "left")) else 0
    )


if __name__ == "__main__":
    sys.exit(main())
