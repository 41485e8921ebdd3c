"""Starts and ends a process that outlives its starter, and starts it again as it was; what it is, is in a directory of its own."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time


def start(directory, script, arguments):
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, os.path.abspath(script), "serve", str(directory), *arguments]
    (directory / "command").write_text(json.dumps(command))
    start_again(directory)


def start_again(directory, more=()):
    """As it was started before; `more` is for this time only."""
    ready = directory / "ready"
    ready.unlink(missing_ok=True)
    command = json.loads((directory / "command").read_text()) + list(more)
    with (directory / "log").open("a") as log:
        # A session of its own: whoever started us ends what is left of his process group.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (directory / "pid").write_text(str(process.pid))
    for _ in range(1500):
        if ready.exists():
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    sys.exit(f"it is not ready; see {directory / 'log'}")


def stop(directory, by=signal.SIGTERM):
    path = directory / "pid"
    if not path.exists():
        return
    pid = int(path.read_text())
    try:
        os.kill(pid, by)
        for _ in range(1500):
            os.kill(pid, 0)
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.02)
        else:
            sys.exit(f"process {pid} does not end")
    except (ProcessLookupError, FileNotFoundError):
        pass
    path.unlink(missing_ok=True)


def ready(directory):
    (directory / "ready").write_text("ready\n")
