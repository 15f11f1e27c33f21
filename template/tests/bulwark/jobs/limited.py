"""A service whose jobs exceed their limits, for test_processes.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from app import create_app
from bulwark.jobs.definitions import job

NOTES = Path(os.environ.get("JOB_NOTES", os.devnull))


def write(text: str) -> None:
    with NOTES.open("a") as file:
        file.write(f"{text} {os.getpid()}\n")


@job("limited_note")
def note(text: str) -> None:
    job.progress(1, 1)
    write(text)


@job("limited_endless", time_limit=1)
def endless() -> None:
    # A child of its own, and a loop that no exception can leave.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write(f"child {child.pid}")
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001
            continue


@job("limited_hungry", memory_limit=100)
def hungry() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(10_000_000))
        write(f"ate {len(eaten)}")


@job("limited_dies")
def dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@job("limited_slow", retries=1, time_limit=100)
def slow() -> None:
    write("slow")
    time.sleep(60)


app = create_app()
