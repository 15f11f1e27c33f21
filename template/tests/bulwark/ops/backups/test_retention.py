"""Retention: the oldest backups are deleted, and nothing else."""

from datetime import timedelta

from tests.bulwark.ops.backups.support import FIRST_DAY, Service


def names(*days: int) -> list[str]:
    """Return how the backups of the days after the first are called."""
    return [f"bulwark-{FIRST_DAY + timedelta(days=day):%Y%m%dT%H%M%SZ}" for day in days]


def test_the_oldest_go_and_nothing_else_does(service: Service):
    service.folder.mkdir()
    others = [
        "bulwark-20200101T000000Z.backup.old",
        "bulwark-before-the-move.backup",
        "bulwark-shop-20200101T000000Z.backup",
        "notes.txt",
    ]
    for name in others:
        (service.folder / name).write_text("mine")
    for _ in range(4):
        service.backup("--keep", "2")
    newest = [f"{name}.backup" for name in names(3, 4)]
    assert service.files() == sorted([*others, *newest])


def test_a_clock_that_was_wrong_does_not_cost_the_newest(service: Service):
    service.folder.mkdir()
    future = [service.folder / f"bulwark-2099010{n}T000000Z.backup" for n in (1, 2, 3)]
    for path in future:
        path.write_text("of a wrong clock")
    new = service.backup("--keep", "2")
    assert service.files() == [new.name, future[-1].name]
