"""Hashing: in turn, known browsers first, then networks that tried least."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.exceptions import ServiceUnavailable

from bulwark.identity.security import password_hashing
from bulwark.identity.security.password_hashing import FIRST, Rank
from bulwark.web import rate_limits
from tests.conftest import GOOD_PASSWORD, Visitor, add_person

WRONG = "purple otter juggles lamp"


@pytest.fixture
def line() -> Iterator[Any]:
    """A line where somebody's password is being hashed until `line.over` is set."""
    line: Any = password_hashing.HashingQueue()
    line.over = threading.Event()
    line.first = line.join(Rank(unknown=True, tries=0), line.over.wait)
    yield line
    line.over.set()
    line.first.result(5)


def strangers(tries: int) -> Rank:
    """Return the rank of a network that has tried so often."""
    return Rank(unknown=True, tries=tries)


def test_known_browsers_have_places_that_nobody_else_takes(line: Any):
    for _ in range(password_hashing.OTHER_PLACES):
        line.join(strangers(0), int)
    with pytest.raises(ServiceUnavailable):
        line.join(strangers(0), int)
    known = [line.join(FIRST, int) for _ in range(password_hashing.KNOWN_PLACES)]
    assert not line.has_place(FIRST)
    with pytest.raises(ServiceUnavailable):
        line.join(FIRST, int)
    line.over.set()
    assert [turn.result(5) for turn in known] == [0] * password_hashing.KNOWN_PLACES


def test_known_browsers_go_first_then_the_networks_that_tried_least(line: Any):
    went: list[str] = []
    line.join(strangers(0), lambda: went.append("a stranger"))
    last = [line.join(FIRST, lambda: went.append("known")) for _ in range(2)]
    line.over.set()
    for turn in last:
        turn.result(5)
    password_hashing._hasher.submit(int).result(5)
    assert went == ["known", "known", "a stranger"]


def test_a_network_that_tried_less_takes_the_place_of_one_that_tried_more(line: Any):
    guess = line.join(strangers(7), lambda: pytest.fail("it was hashed"))
    assert not line.has_place(strangers(7))
    assert not line.has_place(strangers(8))
    honest = line.join(strangers(0), int)
    with pytest.raises(ServiceUnavailable):
        guess.result(0)
    with pytest.raises(ServiceUnavailable):
        line.join(strangers(0), int)
    line.over.set()
    assert honest.result(5) == 0


def test_who_leaves_makes_room_and_is_not_hashed(line: Any):
    turn = line.join(strangers(0), lambda: pytest.fail("it was hashed"))
    assert line.leave(turn)
    assert line.has_place(strangers(0))
    line.over.set()
    line.first.result(5)
    assert not line.leave(line.first)


def test_what_a_hash_raises_is_raised_to_who_waits_and_the_line_goes_on(line: Any):
    line.over.set()
    line.first.result(5)
    failing = line.join(FIRST, lambda: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        failing.result(5)
    assert line.join(FIRST, int).result(5) == 0


def test_tries_of_a_network_are_forgotten_by_halves(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tries = password_hashing.AttemptCounter()
    assert [tries.count("198.51.100.7") for _ in range(8)] == list(range(8))
    assert tries.count("203.0.113.9") == 0
    now[0] += password_hashing.HALVED_AFTER + 1
    assert tries.count("198.51.100.7") == 4
    now[0] += 100 * password_hashing.HALVED_AFTER
    assert tries.count("198.51.100.7") == 0


def test_tries_of_no_more_networks_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(password_hashing, "MOST_NETWORKS", 3)
    tries = password_hashing.AttemptCounter()
    for number in range(9):
        tries.count(f"198.51.100.{number}")
    assert len(tries._counts) == 3


# --- As people and guessers meet it --------------------------------------------------


class Storm:
    """Guesses from many networks, of which one is being hashed and one waits."""

    def __init__(self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.visitor = visitor
        self.networks = iter(f"198.51.{n}.7" for n in range(250))
        self.monkeypatch = monkeypatch
        self.over = threading.Event()
        self.turns = [
            password_hashing._queue.join(strangers(7), self.over.wait) for _ in range(2)
        ]

    def sign_in(self, email: str, password: str = GOOD_PASSWORD) -> int:
        """Sign in from a network of its own; end the storm's hash meanwhile."""
        self.monkeypatch.setattr(rate_limits, "network", lambda: next(self.networks))
        threading.Timer(0.2, self.over.set).start()
        answer = self.visitor.submit("/login", {"email": email, "password": password})
        return answer.status_code


@pytest.fixture
def sam(app: Flask) -> str:
    """The address of somebody else."""
    return add_person(app, "sam@example.org")


@pytest.fixture
def storm(
    visitor: Visitor, person: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storm]:
    visitor.sign_in(person)
    visitor.client.delete_cookie("__Host-session")
    storm = Storm(visitor, monkeypatch)
    yield storm
    storm.over.set()


def test_a_known_browser_signs_in_while_others_guess(storm: Storm, person: str):
    assert storm.sign_in(person) == 302
    assert storm.turns[1].result(5), "the guess still had its turn"


def test_a_network_that_is_new_signs_in_while_others_guess(storm: Storm, person: str):
    storm.visitor.client.delete_cookie("__Host-device")
    assert storm.sign_in(person) == 302
    with pytest.raises(ServiceUnavailable):
        storm.turns[1].result(5)


def test_a_network_that_guesses_waits_for_the_others(storm: Storm, person: str):
    storm.visitor.client.delete_cookie("__Host-device")
    for _ in range(8):
        password_hashing._attempts.count("198.51.0.7")
    assert storm.sign_in(person, WRONG) == 503


def test_a_browser_known_to_another_account_is_not_known(sam: str, storm: Storm):
    """Else an attacker's own account would open the places of everybody."""
    for _ in range(8):
        password_hashing._attempts.count("198.51.0.7")
    assert storm.sign_in(sam) == 503
