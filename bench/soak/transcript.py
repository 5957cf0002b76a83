"""The events of one job at one client, and the findings about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bench.soak.jobs import QUEUED, Script, completed, failed
from bench.soak.late_lines import expected_late, expected_on_time, may_be_late

CONTEXT: Final = 4  # events shown before and after a finding

Kind = Literal["lost", "repeated", "reordered", "wrong"]


@dataclass
class Join:
    """A ``join_job`` request. ``recovered`` comes from the answer, if the server accepted it."""

    after: tuple[str, int] | None = None  # epoch and seq
    recovered: bool | None = None
    refused: str = ""
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Joined:
    epoch: str
    seq: int
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Gap:
    """A ``job_gap``: the server announced that events with ``after < seq < before`` are missing."""

    after: int
    before: int
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Event:
    seq: int
    text: str  # as in ``Script.transcript``
    is_progress: bool = False
    is_end: bool = False
    late_of: int | None = None  # the attempt of a line that is marked as late
    at: float = field(default=0.0, compare=False)


Entry = Join | Joined | Gap | Event
Connection = list[Entry]  # what one connection sent and received for a job, in order


@dataclass(frozen=True)
class Finding:
    kind: Kind
    text: str
    context: tuple[str, ...] = ()  # expected or received events around the finding


@dataclass
class Examination:
    """The result of examining a transcript."""

    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    announced: int = 0  # repeats in snapshots, which ``recovered: false`` announces
    sequence: list[Event] = field(default_factory=list)  # the last epoch, each event once
    gaps: list[Gap] = field(default_factory=list)  # of the last epoch
    epochs: int = 0
    started_without_queued: int = 0

    def find(self, kind: Kind, text: str, context: Iterable[str] = ()) -> None:
        self.findings.append(Finding(kind, text, tuple(context)))


def examine(
    connections: Sequence[Connection], script: Script, after_end: Collection[str] = ()
) -> Examination:
    """Check all events that a client received of a job that has ended.

    Args:
        connections: the entries of each connection.
        script: the script of the job.
        after_end: the late lines that any client received after the end. PROTOCOL.md allows a
            client to stop at the end and to miss them. With RabbitMQ, each server process has its
            own record, so a line may be late in one record only.
    """
    result = examine_order(connections)
    for gap in result.gaps:
        # No job has as many events as the store keeps.
        result.find("lost", f"job_gap after seq {gap.after} and before seq {gap.before}")
    examine_sequence(result, script, after_end)
    return result


def late_lines_after_end(connections: Sequence[Connection]) -> list[str]:
    """Return the late lines that a client received after the end, in order."""
    sequence = examine_order(connections).sequence
    end = next((index for index, event in enumerate(sequence) if event.is_end), len(sequence))
    return [event.text for event in sequence[end:] if event.late_of is not None]


def examine_order(connections: Sequence[Connection]) -> Examination:
    """Check the sequence numbers on each connection and across connections."""
    result = Examination()
    epoch, seen = "", dict[int, Event]()
    for number, connection in enumerate(connections, 1):
        join: Join | None = None
        high, repeats_to, has_joined = 0, 0, False
        received: set[int] = set()
        for entry in connection:
            if isinstance(entry, Join):
                join = entry
            elif isinstance(entry, Joined):
                has_joined = True
                same_epoch = join is None or (
                    join.after is not None and join.after[0] == entry.epoch
                )
                if (join is not None and join.recovered is not True) or entry.epoch != epoch:
                    high, received = 0, set()
                if join is not None and join.after is not None and same_epoch:
                    # Without an answer the events may be a snapshot.
                    high = max(high, join.after[1] if join.recovered else 0)
                    repeats_to = 0 if join.recovered else join.after[1]
                join = None
                if entry.epoch != epoch:
                    epoch, seen = entry.epoch, {}
                    result.epochs += bool(epoch)
                    result.sequence.clear()
                    result.gaps.clear()
            elif isinstance(entry, Gap):
                result.gaps.append(entry)
            else:
                result.events += 1
                where = f"{entry.text!r} (seq {entry.seq}) on connection {number}"
                context = [describe(event) for event in result.sequence[-CONTEXT:]]
                if not has_joined:
                    result.find("reordered", f"{where} arrived before joined", context)
                if entry.seq in received:
                    result.find("repeated", f"{where} arrived on it before", context)
                elif entry.seq in seen:
                    if entry.seq <= repeats_to:
                        result.announced += 1
                    else:
                        result.find("repeated", f"{where} arrived before", context)
                elif entry.seq <= high:
                    result.find("reordered", f"{where} arrived after cursor {high}", context)
                elif result.sequence and entry.seq < result.sequence[-1].seq:
                    last = result.sequence[-1].seq
                    result.find("reordered", f"{where} arrived after seq {last}", context)
                received.add(entry.seq)
                high = max(high, entry.seq)
                if entry.seq not in seen:
                    seen[entry.seq] = entry
                    result.sequence.append(entry)
    return result


def examine_sequence(result: Examination, script: Script, after_end: Collection[str] = ()) -> None:
    """Check that the events, each once, are those that the job published."""
    expected, sequence = script.transcript(), result.sequence
    late = _late_lines(result, script)
    received = [
        event.text
        for event in sequence
        if not event.is_progress and not event.is_end and event.late_of is None
    ]
    if QUEUED not in received:
        # The sender could not publish `queued` before a worker started the job.
        result.started_without_queued = 1
        expected = expected[1:]
    optional = set(after_end).difference(received)
    all_late = [*late, *optional]
    required = [
        line for line in expected_late(script, all_late) if line in late or line not in optional
    ]
    on_time = expected_on_time(script, expected[:-1], all_late, received)
    _compare(result, on_time, received)
    _compare(result, required, late)
    _examine_end(result, expected[-1])
    progress = [event.text for event in sequence if event.is_progress]
    if script.last_progress not in progress:
        result.find("lost", f"progress {script.last_progress!r}", progress[-CONTEXT:])
    elif progress[-1] != script.last_progress:
        text = f"progress {progress[-1]!r} arrived after {script.last_progress!r}"
        result.find("reordered", text, progress[-CONTEXT:])


def _late_lines(result: Examination, script: Script) -> list[str]:
    before: list[str] = []
    late: list[str] = []
    for event in result.sequence:
        if event.late_of is None:
            before.append(event.text)
            continue
        late.append(event.text)
        if not may_be_late(script, event.text, event.late_of, before):
            text = f"{event.text!r} arrived as a late line of attempt {event.late_of}"
            result.find("wrong", text, before[-CONTEXT:])
    return late


def _compare(result: Examination, expected: Sequence[str], received: Sequence[str]) -> None:
    missing = Counter(expected) - Counter(received)
    for index, text in enumerate(expected):
        if text in missing:
            result.find("lost", repr(text), _around(expected, index))
    remaining, furthest = Counter(expected), -1
    places = {text: index for index, text in enumerate(expected)}
    for index, text in enumerate(received):
        if text not in places:
            result.find("wrong", f"{text!r} was never published", _around(received, index))
        elif not remaining[text]:
            finding = f"{text!r} was stored twice, under two sequence numbers"
            result.find("repeated", finding, _around(received, index))
        else:
            remaining[text] -= 1
            if places[text] < furthest:
                finding = f"{text!r} arrived after {expected[furthest]!r}"
                result.find("reordered", finding, _around(received, index))
            furthest = max(furthest, places[text])


def _examine_end(result: Examination, expected: str) -> None:
    sequence = result.sequence
    ends = [(index, event) for index, event in enumerate(sequence) if event.is_end]
    if not ends:
        result.find("lost", f"the end, {expected!r}", map(describe, sequence[-CONTEXT:]))
        return
    for _, event in ends[1:]:
        result.find("wrong", f"{event.text!r} (seq {event.seq}) is a second end")
    index, event = ends[0]
    if event.text != expected:
        result.find("wrong", f"the job ended with {event.text!r} instead of {expected!r}")
    # `_late_lines` has checked the late lines.
    if unexpected := [describe(event) for event in sequence[index + 1 :] if event.late_of is None]:
        after = [describe(event) for event in sequence[index:][: CONTEXT + 1]]
        result.find("wrong", f"{unexpected[0]!r} arrived after the end", after)


def _around(texts: Sequence[str], index: int) -> tuple[str, ...]:
    marked = [f"> {text}" if i == index else text for i, text in enumerate(texts)]
    return tuple(marked[max(0, index - CONTEXT) : index + CONTEXT + 1])


def describe(event: Event) -> str:
    return f"{event.seq} {'progress ' if event.is_progress else ''}{event.text}"


def event_of(name: str, data: Mapping[str, Any], at: float = 0.0) -> Event | None:
    """Return a received job event as an entry, or None for an unknown event."""
    seq: int = data["seq"]
    match name:
        case "job_status":
            words = [data["status"], *([str(data["attempt"])] if "attempt" in data else [])]
            return Event(seq, " ".join(words), at=at)
        case "job_log":
            return Event(seq, data["message"], late_of=data.get("attempt"), at=at)
        case "job_progress":
            return Event(seq, str(data["message"]), is_progress=True, at=at)
        case "job_complete":
            return Event(seq, completed(data["result"]), is_end=True, at=at)
        case "job_error":
            text = failed(data["error"], data["message"], data["reason"])
            return Event(seq, text, is_end=True, at=at)
    return None
