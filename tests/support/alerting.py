"""A service with faster alert rules, and what expects an alert."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.chain import LONG, Chain, Shop
from tests.support.servers import eventually
from tests.support.watched import Watched

SPEED = 60  # an hour of the rules is a minute here

ExpectAlert = Callable[..., AbstractContextManager[None]]


@contextmanager
def watching(service: Watched, folder: Path, speed: int = SPEED) -> Iterator[Chain]:
    """Watch a service with rules that are so many times as fast."""
    shop = Shop()
    folder.mkdir()
    with (
        shop.open() as inbox,
        Chain(folder, shop, inbox, service.port, speed).running() as chain,
    ):
        eventually(lambda: chain.knows("web_up == 1"), LONG)
        yield chain


def firing(name: str, **labels: str) -> str:
    """Return what to ask Prometheus to learn whether an alert fires."""
    wanted = {"alertname": name, "alertstate": "firing", **labels}
    chosen = ",".join(f'{label}="{value}"' for label, value in wanted.items())
    return f"ALERTS{{{chosen}}}"


def alert_expectation(
    chain: Chain, record_property: Callable[[str, Any], None]
) -> ExpectAlert:
    """Return a context manager that expects an alert for what its block does."""

    @contextmanager
    def expect_alert(name: str, **labels: str) -> Iterator[None]:
        eventually(lambda: not chain.knows(firing(name, **labels)), LONG)
        begun = time.time()
        yield
        chain.wait_for_alert(name, begun, **labels)
        seconds = round(time.time() - begun, 1)
        record_property(f"seconds from attack to {name}", seconds)

    return expect_alert


def while_it_lasts(
    outage: AbstractContextManager[None], expect_alert: AbstractContextManager[None]
) -> None:
    """Expect an alert for an outage before it ends."""
    with ExitStack() as end, expect_alert:
        end.enter_context(outage)
