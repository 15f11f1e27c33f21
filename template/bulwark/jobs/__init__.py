"""Background jobs: Huey on the service's own database, run by `flask worker`.

@queue.task(retries=3, retry_delay=60)
def make_report(month: str) -> None: ...

make_report("2026-11")       # queued; a worker runs it with an app context

A job takes plain values: text, numbers, times, and lists and dictionaries of them, but
no objects such as a row of the database. Jobs are signed (`rows`), and a worker
runs only jobs that this service signed.
"""

from flask import Flask

from bulwark.jobs.task_queue import Queue
from bulwark.settings import Config

queue = Queue()


def init_app(app: Flask, config: Config) -> None:
    """Connect the queue."""
    queue.init_app(app, config)
