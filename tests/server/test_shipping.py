"""Each log line reaches Splunk, Loggly or a syslog server, whatever happens.

Most of it is waiting, so what can happen to one kind of server happens to several of
that kind at the same time; see `trials`.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from tests.support.agent import MEBIBYTE, OUTAGE, TOKEN, Service, trouble
from tests.support.servers import PATIENCE, eventually
from tests.support.sinks import BUSY, FINE, SILENT, Loggly, Sink, Splunk, Syslog, Web

pytestmark = pytest.mark.needs("syslog-ng-core", "syslog-ng-mod-http")

SINKS = [Splunk, Loggly, Syslog]
# syslog-ng by itself gives a line up after some of them, at once or at the fourth.
REFUSALS = [301, 400, 403, 410, 413, 422, 429, 503, 504]
FAULTS = ["stopped", "busy", "silent", "stuck", "wrong certificate", "wrong name"]
CUTS = [BUSY, SILENT, FINE]
TOKEN_TRIALS = ["fine", "busy", "stopped", "wrong certificate"]
Trials = dict[tuple[str, str], "Future[None]"]


@pytest.fixture(params=SINKS, ids=lambda kind: str(kind.piece))
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    with request.param(tmp_path).running() as sink:
        yield sink


@pytest.fixture
def service(tmp_path: Path, sink: Sink) -> Service:
    return Service(tmp_path, sink)


LINES = [
    {"event": "request", "route": "/<int:id>", "status": 200, "milliseconds": 1.5},
    {"event": "authn_login_fail", "user_id": None, "nested": {"deep": [1, "2", True]}},
    {"event": "separators \u2028 \u2029 \x85 \v \f", "level": "info"},
    {"event": "line ends \r\n \n \r", "level": "info"},
    {"event": "\x1b[31mred\x1b[0m \x00 \x07 \t \\ \" ' `PATH` $MESSAGE ${HOST} %s"},
    {"event": "<14>1 - - - - - not a header", "é": "ü 漢字 \U0001f512"},
    {"event": "long", "text": "0123456789" * 6_000},
    {"event": "longer", "text": "x" * 250_000},
]


def test_each_line_arrives_as_it_was(service: Service, sink: Sink) -> None:
    # As the service writes it, and with as little escaped as JSON allows.
    lines = [json.dumps(line) for line in LINES]
    lines += [json.dumps(line, ensure_ascii=False) for line in LINES]
    lines += ["no JSON at all", '{"number": NaN}', "  blanks before and after  "]
    with service.shipping():
        service.log.write_bytes("".join(f"{line}\n" for line in lines).encode())
        eventually(lambda: len(sink.lines) > len(lines), 20)
    starts = [line for line in sink.lines if "shipping_starts" in line]
    assert len(starts) == 1
    assert [line for line in sink.lines if line not in starts] == lines


def test_the_first_line_reports_the_start_of_shipping(
    service: Service, sink: Sink
) -> None:
    with service.shipping():
        eventually(lambda: sink.lines, 20)
    output = {"event": "shipping_starts", "service": "shop", "level": "info"}
    assert json.loads(sink.lines[0]) == output


# --- What happens to several at the same time -----------------------------------------


@pytest.fixture(scope="module", params=SINKS, ids=lambda kind: str(kind.piece))
def trials(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trials]:
    """Begin all trials with one kind of server, each with an agent of its own."""
    planned: dict[tuple[str, str], Callable[[Service, Sink], None]] = {}
    for kind in FAULTS:
        planned["fault", kind] = partial(has_a_fault, kind=kind)
    for cut in CUTS:
        planned["cut", cut] = partial(loses_its_agent, cut=cut)
    for trial in TOKEN_TRIALS:
        planned["token", trial] = partial(keeps_the_token, trial=trial)
    if not request.param.busy_is_known:
        del planned["fault", "busy"]  # a syslog server has no answers

    def begin(trial: Callable[[Service, Sink], None], folder: Path) -> None:
        with request.param(folder).running() as sink:
            trial(Service(folder, sink), sink)

    with ThreadPoolExecutor(len(planned)) as pool:
        yield {
            name: pool.submit(begin, trial, tmp_path_factory.mktemp("trial"))
            for name, trial in planned.items()
        }


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_other_side_loses_nothing_and_slows_nobody(
    trials: Trials, kind: str
) -> None:
    if ("fault", kind) not in trials:
        pytest.skip("a syslog server has no answers")
    trials["fault", kind].result()


def has_a_fault(service: Service, sink: Sink, kind: str) -> None:
    # The connection that was open breaks, which syslog notices by a line.
    cost = 0 if kind in ("busy", "stuck") else sink.costs
    with service.shipping():
        service.write(50)
        service.all_arrive(sink)
        with trouble(sink, kind, service.folder):
            before, bytes_before = len(sink.lines), sink.bytes
            # It ends by itself while nobody takes a line.
            assert service.write(int(OUTAGE * 100), pause=0.01, size=500) == 0
            assert len(sink.lines) == before
            if kind.startswith("wrong"):
                assert sink.bytes == bytes_before
        service.write(50)
        service.all_arrive(sink, but=cost)
        assert service.counts()["dropped"] == 0


@pytest.mark.parametrize("cut", CUTS)
def test_an_agent_that_is_killed_loses_nothing_that_it_had_taken(
    trials: Trials, cut: str
) -> None:
    trials["cut", cut].result()


def loses_its_agent(service: Service, sink: Sink, cut: str) -> None:
    mood = SILENT if cut == BUSY and not sink.busy_is_known else cut
    with service.shipping() as agent:
        eventually(lambda: sink.lines)
        sink.mood = mood
        if mood == SILENT:
            sink.leave()
            sink.arrive()
        writer = service.start_writing(600, pause=0.005, size=500)
        eventually(lambda: service.counts()["processed"] > 200)
        agent.kill()
        agent.wait()
        # What it has taken is in its spool alone: the service's file is gone.
        taken = service.spooled()
        assert writer.wait(PATIENCE) == 0
    sink.mood = FINE
    with service.shipping():
        service.write(10)
        service.all_arrive(sink, but=sink.costs if mood == SILENT else 0)
        assert service.counts()["dropped"] == 0
    assert taken or mood == FINE


@pytest.mark.parametrize("trial", TOKEN_TRIALS)
def test_the_token_is_in_no_log_and_in_no_list_of_processes(
    trials: Trials, trial: str
) -> None:
    trials["token", trial].result()


def keeps_the_token(service: Service, sink: Sink, trial: str) -> None:
    notices = trial != "fine" and (sink.busy_is_known or trial != "busy")
    with service.shipping() as agent:
        command = Path(f"/proc/{agent.pid}/cmdline").read_bytes()
        assert b"shipping.conf" in command
        assert TOKEN.encode() not in command
        eventually(lambda: sink.lines)
        before = len(service.output.read_text())
        with trouble(sink, trial, service.folder) if trial != "fine" else nullcontext():
            service.write(5)
            if notices:
                eventually(lambda: len(service.output.read_text()) > before)
            else:
                service.all_arrive(sink)
    output = service.output.read_text()
    assert "shutting down" in output
    if trial != "fine" and sink.piece == "loggly":
        assert "/bulk/TOKEN/tag/shop/" in output
    assert TOKEN not in output
    assert TOKEN not in service.config.read_text()


# --- What happens to one --------------------------------------------------------------


@pytest.mark.parametrize("kind", [Splunk, Syslog], ids=lambda kind: str(kind.piece))
def test_a_full_spool_is_bounded_and_its_loss_counted(
    kind: type[Sink], tmp_path: Path
) -> None:
    with kind(tmp_path).running() as sink:
        service = Service(tmp_path, sink, spool=MEBIBYTE)
        with service.shipping():
            service.write(1)
            service.all_arrive(sink)
            sink.leave()
            # Four times what fits, at full speed; the service writes all of it.
            assert service.write(4_000, size=1_000) == 0
            eventually(lambda: service.counts()["processed"] >= 4_002, 30)
            dropped = service.counts()["dropped"]
            assert 2_000 < dropped < 4_000
            assert service.spooled() <= 1.1 * MEBIBYTE
            sink.arrive()
            eventually(lambda: service.counts()["queued"] == 0, 30)
            assert service.write(1) == 0
            service.all_arrive(sink, but=dropped + sink.costs)
            # The count is exact.
            lost = service.written - len(service.arrived(sink))
            assert dropped <= lost <= dropped + sink.costs
        # Its own log has it as well.
        assert re.search(r"queue.* full, dropping", service.output.read_text())


@pytest.mark.parametrize("kind", [Splunk, Loggly], ids=lambda kind: str(kind.piece))
def test_whatever_the_answer_a_line_is_kept_until_it_is_200(
    kind: type[Web], tmp_path: Path
) -> None:
    def refuse(status: int) -> None:
        folder = tmp_path / str(status)
        folder.mkdir()
        with kind(folder).running() as sink:
            service = Service(folder, sink)
            with service.shipping():
                eventually(lambda: sink.lines)
                sink.status, sink.mood, asked = status, BUSY, len(sink.heads)
                service.write(1)
                eventually(lambda: len(sink.heads) >= asked + 5)
                sink.mood = FINE
                service.all_arrive(sink)
                assert service.counts()["dropped"] == 0

    with ThreadPoolExecutor(len(REFUSALS)) as pool:
        assert len(list(pool.map(refuse, REFUSALS))) == len(REFUSALS)


@pytest.mark.parametrize("kind", SINKS, ids=lambda kind: str(kind.piece))
def test_a_sink_that_vanishes_has_only_what_it_acknowledged(
    kind: type[Sink], tmp_path: Path
) -> None:
    """Cut the power of a sink in the middle of a stream, three times."""

    def is_shipped(sink: Sink, lines: int) -> bool:
        return len(sink.lines) >= lines or writer.poll() is not None

    with kind(tmp_path).running() as sink:
        service = Service(tmp_path, sink)
        with service.shipping():
            writer, under_way = service.start_writing(1_000, pause=0.01), 0
            for _ in range(3):
                eventually(partial(is_shipped, sink, len(sink.lines) + 50))
                sink.vanish()
                time.sleep(1)
                # Without receipts, what was sent and not yet read is lost. A line
                # that the agent sends twice counts once.
                under_way = service.counts()["written"] - len(set(sink.lines))
                sink.arrive()
            assert writer.wait(PATIENCE) == 0
            service.all_arrive(sink, but=max(3 * 5, under_way) * sink.costs)


def test_what_waits_goes_to_a_new_address(
    service: Service, sink: Sink, tmp_path: Path
) -> None:
    with service.shipping():
        eventually(lambda: sink.lines)
        sink.leave()
        service.write(20)
        eventually(lambda: service.counts()["processed"] > 20)
    (tmp_path / "new").mkdir()
    with type(sink)(tmp_path / "new").running() as new:
        service.environment["SHIPPING_PORT"] = str(new.port)
        service.environment["SHIPPING_CA"] = str(new.authority)
        with service.shipping():
            service.write(1)
            service.all_arrive(new, but=sink.costs)
