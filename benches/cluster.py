#!/usr/bin/env python3
"""What sharing costs: 1, 2 and 4 daemons over one PostgreSQL of their own, with the same journeys, on one machine.

    cargo build --release --features full
    benches/cluster.py [--daemons 1,2,4] [--journeys 30000] [--every 60] [--seconds 60] [--binary target/release/journeyman]

Each journey sends a token through memory and waits for it. Printed for each number of daemons: runs a second that were counted, how
late they began, what a run cost in the daemons and in PostgreSQL, and how long what was seen waited for the daemon that decides.
PostgreSQL comes from the system's packages, runs in a directory of its own on a free port, and ends with this.
"""

import argparse
import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, seconds, condition):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"waited {seconds} s for {what}")


class Server:
    """A PostgreSQL as its packages set it up; it refuses to run as root."""

    def __init__(self, directory):
        self.tools = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        self.data, self.port = directory / "pg", free_port()
        self.as_user = {"user": "postgres"} if os.geteuid() == 0 else {}
        self.data.mkdir()
        if self.as_user:
            os.chmod(directory, 0o755)
            os.chown(self.data, pwd.getpwnam("postgres").pw_uid, -1)
        initdb = [self.tools / "initdb", "-D", self.data, "-A", "trust", "-U", "postgres"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **self.as_user)
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.data}"]
        self.process = subprocess.Popen(
            [self.tools / "postgres", "-D", self.data, *options], stderr=subprocess.DEVNULL, cwd="/", **self.as_user
        )
        wait_for("PostgreSQL", 30, lambda: self.ask("postgres", "select 1") == "1")

    def ask(self, database, sql):
        psql = [self.tools / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-At", "-c", sql, database]
        asked = subprocess.run(psql, capture_output=True, text=True)
        return asked.stdout.strip() if asked.returncode == 0 else None

    def cpu(self):
        """CPU seconds of all of its processes so far, those that have ended among them."""
        processes = [self.process.pid, *children(self.process.pid)]
        return sum(cpu(pid) for pid in processes) + cpu(self.process.pid, ended=True)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def stat(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return None


def children(parent):
    pids = (int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if (fields := stat(pid)) and int(fields[1]) == parent]


def cpu(pid, ended=False):
    fields = stat(pid)
    first = 13 if ended else 11
    return sum(map(int, fields[first : first + 2])) / TICKS if fields else 0.0


class Daemon:
    def __init__(self, binary, directory, number, database, port, journeys, every):
        home = directory / f"daemon-{number}"
        home.mkdir()
        self.http = free_port()
        (home / "journeyman.toml").write_text(
            f'probes = ["probes.toml"]\nmax_runs = 4000\n[http]\nlisten = "127.0.0.1:{self.http}"\n'
            f'[store]\nurl = "postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable"\n'
            '[alerting]\nnotify = []\n[self_journey]\nenabled = false\n[channels.loop]\ntype = "memory"\n'
        )
        (home / "probes.toml").write_text(
            "".join(
                f'[[journey]]\nname = "j-{n}"\nevery = "{every}s"\ndeadline = "10s"\nmuted = true\n'
                'step = [{ send = "loop", text = "{{ token }}" }, { receive = "loop" }]\n'
                for n in range(journeys)
            )
        )
        log = (home / "log").open("w")
        command = [binary, "run", "--config", home / "journeyman.toml"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def metrics(self):
        try:
            text = urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10).read().decode()
        except OSError:
            return {}
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def resident(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    def end(self):
        self.process.terminate()
        self.process.wait()


def lateness(before, after):
    """Starts of runs by how late they were, between two looks at the histograms of all daemons: the bound below which 99 % are."""
    counts = {}
    for old, new in zip(before, after):
        for name, value in new.items():
            if name.startswith("journeyman_schedule_lateness_seconds_bucket"):
                bound = float(name.split('le="')[1].split('"')[0].replace("+Inf", "inf"))
                counts[bound] = counts.get(bound, 0) + value - old.get(name, 0)
    total = max(counts.values(), default=0)
    return next((bound for bound in sorted(counts) if counts[bound] >= 0.99 * total), float("nan"))


def measure(server, count, arguments):
    database = f"cluster_{count}"
    server.ask("postgres", f"create database {database}")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="journeyman-cluster-"))
    daemons = []
    try:
        for number in range(count):
            options = (directory, number, database, server.port, arguments.journeys, arguments.every)
            daemons.append(Daemon(arguments.binary, *options))
            wait_for("the daemon to run its part", 120, lambda: daemons[-1].metrics().get("journeyman_cluster_shards"))

        def is_settled():
            held = [daemon.metrics().get("journeyman_cluster_shards", 0) for daemon in daemons]
            return sum(held) == 32 and max(held) - min(held) <= 1

        wait_for("the shards to be shared out", 60, is_settled)
        # Until whoever took journeys up has run each of them once, starts are those of a crowd.
        time.sleep(arguments.settle)
        runs = lambda: int(server.ask(database, "select count(*) from run"))
        looks, counted, database_cpu = [d.metrics() for d in daemons], runs(), server.cpu()
        spent, began, lag = [cpu(d.process.pid) for d in daemons], time.monotonic(), 0.0
        while time.monotonic() - began < arguments.seconds:
            waits = "select coalesce(max(extract(epoch from clock_timestamp()) * 1000 - at), 0) from relay"
            lag = max(lag, float(server.ask(database, waits)) / 1000)
            time.sleep(1)
        took, made = time.monotonic() - began, runs() - counted
        database_cpu = server.cpu() - database_cpu
        spent = [cpu(d.process.pid) - before for d, before in zip(daemons, spent)]
        late = lateness(looks, [d.metrics() for d in daemons])
        unknown = server.ask(database, "select coalesce(sum(count), 0) from span where verdict = 4")
        resident = max(daemon.resident() for daemon in daemons)
        per_run = [1000 * seconds / made for seconds in (sum(spent), database_cpu)]
        print(
            f"| {count} | {made / took:.0f} | {late * 1000:.0f} ms | {per_run[0]:.2f} ms | {max(spent) / took * 100:.0f} % "
            f"| {per_run[1]:.2f} ms | {lag:.2f} s | {resident:.0f} MiB | {unknown} |",
            flush=True,
        )
    finally:
        for daemon in daemons:
            daemon.end()
        shutil.rmtree(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemons", default="1,2,4")
    parser.add_argument("--journeys", type=int, default=30_000)
    parser.add_argument("--every", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--settle", type=int, default=20)
    parser.add_argument("--binary", default="target/release/journeyman")
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="journeyman-cluster-pg-"))
    server = Server(directory)
    try:
        print("| daemons | runs/s | late, p99 | CPU a run, daemons | busiest daemon | CPU a run, PostgreSQL | longest wait to be heard | resident, most | unknown slots |")
        print("|---|---|---|---|---|---|---|---|---|")
        for count in map(int, arguments.daemons.split(",")):
            measure(server, count, arguments)
    finally:
        server.end()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
