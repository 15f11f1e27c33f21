"""Background jobs: Huey on the service's own database, run by `flask worker`.

`definitions.job` makes a function a job that is tried again, has limits and reports its
progress; `runs` stores each run, and `runner` runs it. `queue` is Huey itself, which
wakes workers and runs the short jobs of the base.

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
