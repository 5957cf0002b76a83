"""Short runs of the soak, and the findings of its checks."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.endings import Options as Endings
from bench.endings import endings
from bench.soak import (
    TRANSPORTS,
    Connection,
    Event,
    Examined,
    Join,
    Joined,
    Options,
    Transport,
    examine,
    soak_apart,
)
from bench.soak.late import lines_of
from bench.soak.transcript import late_lines_after_end
from bench.soak_jobs import Script
from tests.support import TIMEOUT, Process


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_event_is_lost_repeated_or_reordered_during_faults(
    transport: Transport,
) -> None:
    report = soak_apart(Options(transport=transport, seconds=12, seed=7, jobs=4, clients=8))
    details = f"{report.table()}\n\n{report.details()}\n\nthe logs are in {report.folder}"
    assert (report.lost, report.repeated, report.reordered, report.wrong) == (0, 0, 0, 0), details
    assert not report.server_errors, details
    assert all(report.faults.values()), details
    assert report.counts["joins that recovered"], details


def test_every_job_has_one_end_while_workers_are_killed() -> None:
    report = endings(Endings(jobs=100, seed=7))
    details = "\n".join([report.table(), *report.problems, f"the logs are in {report.folder}"])
    assert report.ok, details
    assert set(report.faults) == {"child killed", "worker killed"}, details
    assert {"complete", "error: worker_lost"} <= set(report.endings), details


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interrupted_soak_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.soak", "--seconds", "600", "--jobs", "2"]
    soak = Process(command, tmp_path / "soak.log", {"TMPDIR": str(tmp_path)})
    soak_process = psutil.Process(soak.popen.pid)
    try:
        soak.expect(lambda: [*tmp_path.glob("jobcast-soak-*/soak-1.log")], "worker")
        started = soak_process.children(recursive=True)
        assert any("celery" in process.cmdline() for process in started)
        soak.popen.send_signal(number)
        _, left = psutil.wait_procs([soak_process, *started], timeout=TIMEOUT)
        assert left == []
    finally:
        for process in soak_process.children(recursive=True) if soak_process.is_running() else ():
            process.kill()
        soak.kill()


@pytest.fixture
def script() -> Script:
    """A job with log lines and one retry."""
    scripts = map(Script.of, range(1000))
    retried = (s for s in scripts if s.retry_before is not None)
    return next(s for s in retried if all(len(lines_of(s, attempt)) > 8 for attempt in s.attempts))


@pytest.fixture
def events(script: Script) -> list[Event]:
    """The events of the script in order."""
    *texts, end = script.transcript()
    events = [Event(seq, text) for seq, text in enumerate(texts, 1)]
    events.append(Event(len(texts) + 1, script.last_progress, is_progress=True))
    events.append(Event(len(texts) + 2, end, is_end=True))
    return events


def connection(
    events: list[Event], after: int | None = None, recovered: bool | None = None
) -> Connection:
    """Return a connection with one join that received these events."""
    cursor = None if after is None else ("e", after)
    recovered = after is not None if recovered is None else recovered
    return [Join(cursor, recovered), Joined("e", events[-1].seq), *events]


def finding_kinds(examined: Examined) -> list[str]:
    return [finding.kind for finding in examined.findings]


def test_complete_transcript_has_no_findings(script: Script, events: list[Event]) -> None:
    examined = examine([connection(events)], script)
    assert examined.findings == []
    assert examined.events == len(events)


def test_transcript_over_several_connections_has_no_findings(
    script: Script, events: list[Event]
) -> None:
    first, second, third = events[:5], events[5:12], events[12:]
    joins = [connection(first), connection(second, after=5), connection(third, after=12)]
    assert examine(joins, script).findings == []


@pytest.mark.parametrize("index", [1, 6, -2, -1])
def test_lost_event_is_found(script: Script, events: list[Event], index: int) -> None:
    del events[index]
    assert finding_kinds(examine([connection(events)], script)) == ["lost"]


def test_queued_event_may_be_missing_but_not_late(script: Script, events: list[Event]) -> None:
    examined = examine([connection(events[1:])], script)
    assert examined.findings == []
    assert examined.begun_before_queued == 1
    late = [events[1], Event(2, events[0].said), *events[2:]]
    late[0] = Event(1, events[1].said)
    assert finding_kinds(examine([connection(late)], script)) == ["reordered"]


def test_event_repeated_on_a_connection_is_found(script: Script, events: list[Event]) -> None:
    events.insert(9, events[6])
    assert finding_kinds(examine([connection(events)], script)) == ["repeated"]


def test_event_repeated_on_a_later_connection_is_found(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:8]), connection(events[7:], after=8)]
    assert finding_kinds(examine(joins, script)) == ["repeated"]


def test_event_older_than_the_cursor_is_found(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:7]), connection(events[7:], after=8)]
    assert finding_kinds(examine(joins, script)) == ["reordered"]


def test_snapshot_may_repeat_events(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:8]), connection(events, after=8, recovered=False)]
    examined = examine(joins, script)
    assert examined.findings == []
    assert examined.announced == 8


def test_event_that_no_snapshot_announced_may_not_be_repeated(
    script: Script, events: list[Event]
) -> None:
    joins = [connection(events[:8]), connection(events, after=7, recovered=False)]
    assert finding_kinds(examine(joins, script)) == ["repeated"]


def test_event_stored_twice_is_found(script: Script, events: list[Event]) -> None:
    again = Event(7, events[5].said)
    late = [Event(e.seq + 1, e.said, e.is_progress, e.is_end) for e in events[6:]]
    assert finding_kinds(examine([connection([*events[:6], again, *late])], script)) == ["repeated"]


def test_sequence_numbers_out_of_order_are_found(script: Script, events: list[Event]) -> None:
    events[6], events[7] = events[7], events[6]
    found = finding_kinds(examine([connection(events)], script))
    assert found
    assert set(found) == {"reordered"}


def test_events_stored_out_of_order_are_found(script: Script, events: list[Event]) -> None:
    one, other = events[6], events[7]
    events[6:8] = [Event(one.seq, other.said), Event(other.seq, one.said)]
    assert finding_kinds(examine([connection(events)], script)) == ["reordered"]


def test_unexpected_end_is_found(script: Script, events: list[Event]) -> None:
    events[-1] = Event(events[-1].seq, "complete null", is_end=True)
    assert finding_kinds(examine([connection(events)], script)) == ["wrong"]


def test_event_after_the_end_is_found(script: Script, events: list[Event]) -> None:
    last = Event(events[-1].seq + 1, script.last_progress, is_progress=True)
    assert finding_kinds(examine([connection([*events, last])], script)) == ["wrong"]


def test_line_that_the_job_never_logged_is_found(script: Script, events: list[Event]) -> None:
    events[-2:-2] = [Event(events[-2].seq, "line 100000")]
    events[-2:] = [Event(e.seq + 1, e.said, e.is_progress, e.is_end) for e in events[-2:]]
    assert finding_kinds(examine([connection(events)], script)) == ["wrong"]


def test_script_follows_from_its_seed(script: Script) -> None:
    assert Script.of(script.seed) == script


def with_late_lines(script: Script, events: list[Event], late: int) -> list[Event]:
    """Move the last lines of the first attempt to the end of the second."""
    lines = lines_of(script, 1)[-late:]
    others = [event for event in events if event.said not in (*lines, "retrying 2")]
    moved = [*others[:-2], *(Event(0, line, late_of=1) for line in lines), *others[-2:]]
    return [replace(event, seq=seq) for seq, event in enumerate(moved, 1)]


def test_lines_of_an_earlier_attempt_may_come_late(script: Script, events: list[Event]) -> None:
    assert examine([connection(with_late_lines(script, events, 2))], script).findings == []
    everything = with_late_lines(script, events, len(lines_of(script, 1)))
    without_start = [event for event in everything if event.said != "started 1"]
    assert examine([connection(without_start)], script).findings == []


def with_lines_after_end(script: Script, events: list[Event]) -> list[Event]:
    """Move two lines of the first attempt after the end of the second."""
    *before, one, other, progress, end = with_late_lines(script, events, 2)
    return [replace(e, seq=seq) for seq, e in enumerate([*before, progress, end, one, other], 1)]


def test_lines_of_an_earlier_attempt_may_come_after_the_end(
    script: Script, events: list[Event]
) -> None:
    received = connection(with_lines_after_end(script, events))
    late = late_lines_after_end([received])
    assert late == lines_of(script, 1)[-2:]
    assert examine([received], script, late).findings == []


def test_client_may_stop_at_the_end_and_miss_late_lines(
    script: Script, events: list[Event]
) -> None:
    received = with_lines_after_end(script, events)
    late = late_lines_after_end([connection(received)])
    for missing in (1, 2):
        assert examine([connection(received[:-missing])], script, late).findings == []
    assert finding_kinds(examine([connection(received[:-2])], script)) == ["lost"] * 3


def test_line_of_the_last_attempt_after_the_end_is_found(
    script: Script, events: list[Event]
) -> None:
    line = replace(events.pop(-3), seq=len(events) + 2)
    assert "wrong" in finding_kinds(examine([connection([*events, line])], script))


def test_late_line_without_its_mark_is_found(script: Script, events: list[Event]) -> None:
    late = [replace(event, late_of=None) for event in with_late_lines(script, events, 2)]
    assert set(finding_kinds(examine([connection(late)], script))) == {"lost", "reordered"}


def test_timely_line_marked_as_late_is_found(script: Script, events: list[Event]) -> None:
    [index] = [i for i, event in enumerate(events) if event.said == lines_of(script, 1)[-1]]
    events[index] = replace(events[index], late_of=1)
    assert "wrong" in finding_kinds(examine([connection(events)], script))


def test_line_of_the_latest_attempt_marked_as_late_is_found(
    script: Script, events: list[Event]
) -> None:
    late = with_late_lines(script, events, 2)
    marked = [replace(event, late_of=event.late_of and 2) for event in late]
    assert finding_kinds(examine([connection(marked)], script)) == ["wrong", "wrong"]


def test_lost_or_reordered_late_lines_are_found(script: Script, events: list[Event]) -> None:
    late = with_late_lines(script, events, 3)
    [*_, second, third] = [i for i, event in enumerate(late) if event.late_of]
    lost = [event for event in late if event is not late[third]]
    assert finding_kinds(examine([connection(lost)], script)) == ["lost"]
    late[second], late[third] = (
        replace(late[third], seq=late[second].seq),
        replace(late[second], seq=late[third].seq),
    )
    assert finding_kinds(examine([connection(late)], script)) == ["reordered"]
