"""Hostile requests: whatever is sent, no answer is a fault of the service.

    HOSTILE_REQUESTS=20000 bin/test -s tests/bulwark/web/test_hostile.py

sends more of them, to your routes as well, and prints what they were answered.
"""

import faulthandler
import os
import sys
from pathlib import Path

import pytest
from flask import Flask

from bulwark.web.rate_limits import limiter
from tests.hostile import Attack

REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "400"))


# Werkzeug leaves the files of a form that breaks off to the garbage collection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(60 + REQUESTS)
def test_no_hostile_request_makes_the_service_fail(
    app: Flask, mailbox: Path, monkeypatch: pytest.MonkeyPatch
):
    # The timeout above counts here, not pytest's end of a process after six minutes.
    faulthandler.cancel_dump_traceback_later()
    monkeypatch.setattr(limiter, "enabled", False)
    attack = Attack(app, mailbox, seed=int(os.environ.get("HOSTILE_SEED", "1")))
    attack.run(REQUESTS)
    statuses = ", ".join(f"{n} times {s}" for s, n in sorted(attack.statuses.items()))
    sys.stdout.write(
        f"\n{REQUESTS} requests, {attack.failed} of them 5xx: {statuses}\n"
    )
    assert attack.failures == {}
