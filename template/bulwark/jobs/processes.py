"""Processes that run jobs, each within a limit on time and on memory.

A thread can't be ended, and its memory is the worker's. A process can: the system frees
what it has. Starting one takes seconds, so it runs one job after the other, until one
exceeds a limit.
"""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

START_TIME = 120  # seconds; on a busy machine, importing the service takes a while
SEEN_EVERY = 15  # seconds between two calls of `seen`
MOST_RUNS = 200  # what a library leaks ends with the process
MEGABYTE = 1024 * 1024
DATA = 5  # the place of data and stack in /proc/PID/statm: proc_pid_statm(5)


class ProcessEndedError(Exception):
    """The process of a job ended, or was ended. The message explains why."""


class Process:
    """A process as the worker sees it."""

    def __init__(self, command: list[str]) -> None:
        """Start a process: the command, followed by the number of its socket."""
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(  # noqa: S603  the service's own command
                [*command, str(other.fileno())],
                pass_fds=[other.fileno()],
                # With its children, it is ended as one group; Ctrl-C doesn't reach it.
                start_new_session=True,
            )
        self._runs = 0
        self._received = b""
        self.is_reusable = True

    def run(
        self, run_id: str, time_limit: int, memory_limit: int, seen: Callable[[], None]
    ) -> str:
        """Run a job; return why it failed, or "".

        Args:
            run_id: the run.
            time_limit: seconds until the process is ended.
            memory_limit: megabytes that it may allocate for this job.
            seen: is called every few seconds while the job runs.

        Raises:
            ProcessEndedError: the job took too long, or ended the process.
        """
        self._runs += 1
        if self._runs == 1 and self._receive(START_TIME, seen) is None:
            raise self._ended("The process for the job did not start.")
        request = {"run": run_id, "megabytes": memory_limit}
        with suppress(OSError):  # its end is found below
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = self._receive(time_limit, seen)
        if answer is None:
            raise self._ended(f"It took more than {time_limit} seconds and was ended.")
        if answer.get("out_of_memory"):
            self.is_reusable = False
            return f"It needed more than {memory_limit} MB. {answer['error']}"
        self.is_reusable = self._runs < MOST_RUNS
        return str(answer["error"])

    def kill(self) -> None:
        """End the process and its children at once."""
        self.is_reusable = False
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()

    def stop(self) -> None:
        """End the process, which runs no job."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.kill()

    def _receive(self, seconds: int, seen: Callable[[], None]) -> dict[str, Any] | None:
        """Return what the process sends, or None if it ended or is late."""
        end = time.monotonic() + seconds
        while b"\n" not in self._received:
            left = end - time.monotonic()
            if left <= 0:
                return None
            ready, _, _ = select.select([self._socket], [], [], min(left, SEEN_EVERY))
            seen()
            if not ready:
                continue
            part = b""
            with suppress(OSError):
                part = self._socket.recv(65536)
            if not part:
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self, late: str) -> ProcessEndedError:
        """End the process; return why the job failed."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(0.5)
            self.kill()
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            return ProcessEndedError(
                f"Its process ended ({how}). It may have needed too much memory."
            )
        self.kill()
        return ProcessEndedError(late)


def serve(number: int, perform: Callable[[str], str]) -> None:
    """Run jobs that the worker sends, in the process that it started.

    Args:
        number: the socket to the worker.
        perform: runs a job, and returns why it failed.
    """
    # The worker ends this process: a stop signal to all lets the job finish.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # If the system is out of memory, it ends this process and not the worker.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    connection = socket.socket(fileno=number)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, requests), daemon=True).start()
    connection.sendall(b"{}\n")
    while True:
        request = requests.get()
        limit_memory(request["megabytes"])
        error = perform(request["run"])
        lift_memory_limit()
        out_of_memory = error.startswith(MemoryError.__name__)
        answer = {"error": error, "out_of_memory": out_of_memory}
        connection.sendall(json.dumps(answer).encode() + b"\n")


def limit_memory(megabytes: int) -> None:
    """Let this process allocate so much more; then Python raises MemoryError.

    Shared libraries and files don't count, as they would for a limit on the address
    space. Only Linux has the figure.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[DATA])
    except FileNotFoundError:
        return
    wanted = pages * resource.getpagesize() + megabytes * MEGABYTE
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))


def lift_memory_limit() -> None:
    """Remove the limit again, such as to report that it was reached."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _read(connection: socket.socket, requests: "SimpleQueue[dict[str, Any]]") -> None:
    """Pass on requests; end this process with the worker, even while a job runs."""
    with connection.makefile() as lines:
        for line in lines:
            requests.put(json.loads(line))
    os._exit(0)
