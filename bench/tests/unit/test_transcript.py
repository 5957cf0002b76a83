"""A soak's checks accept correct transcripts and find every kind of fault in the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.soak.jobs import Script
from bench.soak.late_lines import lines_of_attempt
from bench.soak.transcript import (
    Connection,
    Event,
    Examination,
    Gap,
    Join,
    Joined,
    examine,
    late_lines_after_end,
)


@pytest.fixture
def script() -> Script:
    """Return a job that logs lines and is retried once."""
    scripts = map(Script.of, range(1000))
    retried = (s for s in scripts if s.retry_before is not None)
    return next(
        s for s in retried if all(len(lines_of_attempt(s, attempt)) > 8 for attempt in s.attempts)
    )


@pytest.fixture
def events(script: Script) -> list[Event]:
    """Return all events of the job, in order."""
    *texts, end = script.transcript()
    events = [Event(seq, text) for seq, text in enumerate(texts, 1)]
    events.append(Event(len(texts) + 1, script.last_progress, is_progress=True))
    events.append(Event(len(texts) + 2, end, is_end=True))
    return events


def connection(
    events: list[Event], after: int | None = None, recovered: bool | None = None
) -> Connection:
    """Return a connection that joined once and received these events."""
    cursor = None if after is None else ("e", after)
    recovered = after is not None if recovered is None else recovered
    return [Join(cursor, recovered), Joined("e", events[-1].seq), *events]


def kinds(result: Examination) -> list[str]:
    return [finding.kind for finding in result.findings]


def test_complete_transcript_has_no_findings(script: Script, events: list[Event]) -> None:
    result = examine([connection(events)], script)
    assert result.findings == []
    assert result.events == len(events)


def test_transcript_over_several_connections_has_no_findings(
    script: Script, events: list[Event]
) -> None:
    first, second, third = events[:5], events[5:12], events[12:]
    joins = [connection(first), connection(second, after=5), connection(third, after=12)]
    assert examine(joins, script).findings == []


@pytest.mark.parametrize("index", [1, 6, -2, -1])
def test_lost_event_is_found(script: Script, events: list[Event], index: int) -> None:
    del events[index]
    assert kinds(examine([connection(events)], script)) == ["lost"]


def test_queued_event_may_be_missing_but_not_late(script: Script, events: list[Event]) -> None:
    result = examine([connection(events[1:])], script)
    assert result.findings == []
    assert result.started_without_queued == 1
    late = [events[1], Event(2, events[0].text), *events[2:]]
    late[0] = Event(1, events[1].text)
    assert kinds(examine([connection(late)], script)) == ["reordered"]


def test_event_repeated_on_a_connection_is_found(script: Script, events: list[Event]) -> None:
    events.insert(9, events[6])
    assert kinds(examine([connection(events)], script)) == ["repeated"]


def test_event_repeated_after_recovery_is_found(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:8]), connection(events[7:], after=8)]
    assert kinds(examine(joins, script)) == ["repeated"]


def test_event_older_than_the_cursor_is_found(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:7]), connection(events[7:], after=8)]
    assert kinds(examine(joins, script)) == ["reordered"]


def test_snapshot_may_repeat_events(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:8]), connection(events, after=8, recovered=False)]
    result = examine(joins, script)
    assert result.findings == []
    assert result.announced == 8


def test_snapshot_may_repeat_only_events_up_to_the_cursor(
    script: Script, events: list[Event]
) -> None:
    joins = [connection(events[:8]), connection(events, after=7, recovered=False)]
    assert kinds(examine(joins, script)) == ["repeated"]


def test_event_stored_twice_is_found(script: Script, events: list[Event]) -> None:
    again = Event(7, events[5].text)
    late = [Event(e.seq + 1, e.text, e.is_progress, e.is_end) for e in events[6:]]
    assert kinds(examine([connection([*events[:6], again, *late])], script)) == ["repeated"]


def test_gap_in_the_history_is_found(script: Script, events: list[Event]) -> None:
    joins = [connection(events[:8]), [*connection(events[8:], after=8), Gap(8, 9)]]
    assert kinds(examine(joins, script)) == ["lost"]


def test_gap_in_a_former_record_is_accepted(script: Script, events: list[Event]) -> None:
    former: Connection = [Join(), Joined("former", 9), Gap(2, 4), Event(5, "started 1")]
    assert examine([former, connection(events)], script).findings == []


def test_decreasing_seq_is_found(script: Script, events: list[Event]) -> None:
    events[6], events[7] = events[7], events[6]
    found = kinds(examine([connection(events)], script))
    assert found
    assert set(found) == {"reordered"}


def test_events_stored_out_of_order_are_found(script: Script, events: list[Event]) -> None:
    one, other = events[6], events[7]
    events[6:8] = [Event(one.seq, other.text), Event(other.seq, one.text)]
    assert kinds(examine([connection(events)], script)) == ["reordered"]


def test_unexpected_end_is_found(script: Script, events: list[Event]) -> None:
    events[-1] = Event(events[-1].seq, "complete null", is_end=True)
    assert kinds(examine([connection(events)], script)) == ["wrong"]


def test_event_after_the_end_is_found(script: Script, events: list[Event]) -> None:
    last = Event(events[-1].seq + 1, script.last_progress, is_progress=True)
    assert kinds(examine([connection([*events, last])], script)) == ["wrong"]


def test_unknown_line_is_found(script: Script, events: list[Event]) -> None:
    events[-2:-2] = [Event(events[-2].seq, "line 100000")]
    events[-2:] = [Event(e.seq + 1, e.text, e.is_progress, e.is_end) for e in events[-2:]]
    assert kinds(examine([connection(events)], script)) == ["wrong"]


def test_script_depends_only_on_its_seed(script: Script) -> None:
    assert Script.of(script.seed) == script


def with_late_lines(script: Script, events: list[Event], late: int) -> list[Event]:
    """Move the last lines of the first attempt to the end of the second."""
    lines = lines_of_attempt(script, 1)[-late:]
    on_time = [event for event in events if event.text not in (*lines, "retrying 2")]
    reordered = [*on_time[:-2], *(Event(0, text, late_of=1) for text in lines), *on_time[-2:]]
    return [replace(event, seq=seq) for seq, event in enumerate(reordered, 1)]


def test_lines_of_an_earlier_attempt_may_arrive_late(script: Script, events: list[Event]) -> None:
    assert examine([connection(with_late_lines(script, events, 2))], script).findings == []
    all_late = with_late_lines(script, events, len(lines_of_attempt(script, 1)))
    assert examine([connection(all_late)], script).findings == []
    without_start = [event for event in all_late if event.text != "started 1"]
    assert examine([connection(without_start)], script).findings == []


def after_the_end(script: Script, events: list[Event]) -> list[Event]:
    """Move the last two lines of the first attempt behind the end of the second."""
    *before, one, other, progress, end = with_late_lines(script, events, 2)
    return [replace(e, seq=seq) for seq, e in enumerate([*before, progress, end, one, other], 1)]


def test_lines_of_an_earlier_attempt_may_arrive_after_the_end(
    script: Script, events: list[Event]
) -> None:
    late_after_end = connection(after_the_end(script, events))
    late = late_lines_after_end([late_after_end])
    assert late == lines_of_attempt(script, 1)[-2:]
    assert examine([late_after_end], script, late).findings == []


def test_client_may_miss_late_lines_after_the_end(script: Script, events: list[Event]) -> None:
    late_after_end = after_the_end(script, events)
    late = late_lines_after_end([connection(late_after_end)])
    for missing in (1, 2):
        assert examine([connection(late_after_end[:-missing])], script, late).findings == []
    assert kinds(examine([connection(late_after_end[:-2])], script)) == ["lost"] * 3


def test_late_lines_of_another_record_may_be_on_time(script: Script, events: list[Event]) -> None:
    late = late_lines_after_end([connection(after_the_end(script, events))])
    assert examine([connection(events)], script, late).findings == []


def test_line_of_the_last_attempt_after_the_end_is_found(
    script: Script, events: list[Event]
) -> None:
    line = replace(events.pop(-3), seq=len(events) + 2)
    assert "wrong" in kinds(examine([connection([*events, line])], script))


def test_unmarked_late_line_is_found(script: Script, events: list[Event]) -> None:
    late = [replace(event, late_of=None) for event in with_late_lines(script, events, 2)]
    assert set(kinds(examine([connection(late)], script))) == {"lost", "reordered"}


def test_timely_line_marked_as_late_is_found(script: Script, events: list[Event]) -> None:
    [index] = [i for i, event in enumerate(events) if event.text == lines_of_attempt(script, 1)[-1]]
    events[index] = replace(events[index], late_of=1)
    assert "wrong" in kinds(examine([connection(events)], script))


def test_late_line_of_the_latest_attempt_is_found(script: Script, events: list[Event]) -> None:
    late = with_late_lines(script, events, 2)
    relabelled = [replace(event, late_of=event.late_of and 2) for event in late]
    assert kinds(examine([connection(relabelled)], script)) == ["wrong", "wrong"]


def test_lost_and_reordered_late_lines_are_found(script: Script, events: list[Event]) -> None:
    late = with_late_lines(script, events, 3)
    [*_, second, third] = [i for i, event in enumerate(late) if event.late_of]
    lost = [event for event in late if event is not late[third]]
    assert kinds(examine([connection(lost)], script)) == ["lost"]
    late[second], late[third] = (
        replace(late[third], seq=late[second].seq),
        replace(late[second], seq=late[third].seq),
    )
    assert kinds(examine([connection(late)], script)) == ["reordered"]
