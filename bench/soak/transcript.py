"""What one client was sent of one job, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bench.soak.jobs import QUEUED, Script, completed, failed
from bench.soak.late_lines import expected_in_time, expected_late, may_be_late

AROUND: Final = 4  # events that are shown before and after the place

Kind = Literal["lost", "repeated", "reordered", "wrong"]


@dataclass
class Join:
    """A ``join_job`` that was sent. ``recovered`` is what it was answered, if it was accepted."""

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
class Event:
    seq: int
    said: str  # as in ``Script.transcript``
    is_progress: bool = False
    is_end: bool = False
    late_of: int | None = None  # the try that a line is of, if it says that it comes late
    at: float = field(default=0.0, compare=False)


Entry = Join | Joined | Event
Connection = list[Entry]  # what one connection was sent of a job, in order


@dataclass(frozen=True)
class Finding:
    kind: Kind
    what: str
    place: tuple[str, ...] = ()  # expected or received events around it


@dataclass
class Examined:
    """What a transcript comes to."""

    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    announced: int = 0  # repeats that a snapshot, ``recovered: false``, brings
    story: list[Event] = field(default_factory=list)  # of the last epoch, each event once
    epochs: int = 0
    begun_before_queued: int = 0

    def find(self, kind: Kind, what: str, place: Iterable[str] = ()) -> None:
        self.findings.append(Finding(kind, what, tuple(place)))


def examine(
    connections: Sequence[Connection], script: Script, after_end: Collection[str] = ()
) -> Examined:
    """Check all that a client was sent of a job that has ended.

    Args:
        connections: what each of its connections was sent.
        script: what the job does.
        after_end: the late lines that some client was sent after the end. PROTOCOL.md lets a client
            stop at the end, and miss them.
    """
    examined = examine_order(connections)
    examine_story(examined, script, after_end)
    return examined


def late_lines_after_end(connections: Sequence[Connection]) -> list[str]:
    """The late lines that a client was sent after the end, in order."""
    story = examine_order(connections).story
    end = next((index for index, event in enumerate(story) if event.is_end), len(story))
    return [event.said for event in story[end:] if event.late_of is not None]


def examine_order(connections: Sequence[Connection]) -> Examined:
    """Check what the numbers say: on each connection, and over all of them."""
    examined = Examined()
    epoch, seen = "", dict[int, Event]()
    for number, connection in enumerate(connections, 1):
        join: Join | None = None
        high, repeats_to, begun = 0, 0, False
        sent: set[int] = set()
        for entry in connection:
            if isinstance(entry, Join):
                join = entry
            elif isinstance(entry, Joined):
                begun = True
                same = join is None or (join.after is not None and join.after[0] == entry.epoch)
                if (join is not None and join.recovered is not True) or entry.epoch != epoch:
                    high, sent = 0, set()
                if join is not None and join.after is not None and same:
                    # Without an answer nobody knows whether it was to be a snapshot.
                    high = max(high, join.after[1] if join.recovered else 0)
                    repeats_to = 0 if join.recovered else join.after[1]
                join = None
                if entry.epoch != epoch:
                    epoch, seen = entry.epoch, {}
                    examined.epochs += bool(epoch)
                    examined.story.clear()
            else:
                examined.events += 1
                where = f"{entry.said!r} (seq {entry.seq}) on connection {number}"
                place = [told(event) for event in examined.story[-AROUND:]]
                if not begun:
                    examined.find("reordered", f"{where} came before joined", place)
                if entry.seq in sent:
                    examined.find("repeated", f"{where} came on it before", place)
                elif entry.seq in seen:
                    if entry.seq <= repeats_to:
                        examined.announced += 1
                    else:
                        examined.find("repeated", f"{where} came before", place)
                elif entry.seq <= high:
                    examined.find("reordered", f"{where} came although seq {high} was", place)
                elif examined.story and entry.seq < examined.story[-1].seq:
                    last = examined.story[-1].seq
                    examined.find("reordered", f"{where} came after seq {last}", place)
                sent.add(entry.seq)
                high = max(high, entry.seq)
                if entry.seq not in seen:
                    seen[entry.seq] = entry
                    examined.story.append(entry)
    return examined


def examine_story(examined: Examined, script: Script, after_end: Collection[str] = ()) -> None:
    """Check that what was sent, each event once, is what the job has said."""
    expected, story = script.transcript(), examined.story
    late = _late_lines(examined, script)
    got = [
        event.said
        for event in story
        if not event.is_progress and not event.is_end and event.late_of is None
    ]
    if QUEUED not in got:
        # Its sender could not say so before a worker began: then it was not true any more.
        examined.begun_before_queued = 1
        expected = expected[1:]
    all_late = [*late, *after_end]
    owed = [
        said for said in expected_late(script, all_late) if said in late or said not in after_end
    ]
    _compare(examined, expected_in_time(script, expected[:-1], all_late), got)
    _compare(examined, owed, late)
    _examine_end(examined, expected[-1])
    progress = [event.said for event in story if event.is_progress]
    if script.last_progress not in progress:
        examined.find("lost", f"progress {script.last_progress!r}", progress[-AROUND:])
    elif progress[-1] != script.last_progress:
        what = f"progress {progress[-1]!r} came after {script.last_progress!r}"
        examined.find("reordered", what, progress[-AROUND:])


def _late_lines(examined: Examined, script: Script) -> list[str]:
    before: list[str] = []
    late: list[str] = []
    for event in examined.story:
        if event.late_of is None:
            before.append(event.said)
            continue
        late.append(event.said)
        if not may_be_late(script, event.said, event.late_of, before):
            what = f"{event.said!r} came as a late line of attempt {event.late_of}"
            examined.find("wrong", what, before[-AROUND:])
    return late


def _compare(examined: Examined, expected: Sequence[str], got: Sequence[str]) -> None:
    missing = Counter(expected) - Counter(got)
    for index, said in enumerate(expected):
        if said in missing:
            examined.find("lost", repr(said), _around(expected, index))
    left, furthest = Counter(expected), -1
    places = {said: index for index, said in enumerate(expected)}
    for index, said in enumerate(got):
        if said not in places:
            examined.find("wrong", f"{said!r} was never said", _around(got, index))
        elif not left[said]:
            what = f"{said!r} was stored twice, under two numbers"
            examined.find("repeated", what, _around(got, index))
        else:
            left[said] -= 1
            if places[said] < furthest:
                what = f"{said!r} came after {expected[furthest]!r}"
                examined.find("reordered", what, _around(got, index))
            furthest = max(furthest, places[said])


def _examine_end(examined: Examined, expected: str) -> None:
    story = examined.story
    ends = [(index, event) for index, event in enumerate(story) if event.is_end]
    if not ends:
        examined.find("lost", f"the end, {expected!r}", map(told, story[-AROUND:]))
        return
    for _, event in ends[1:]:
        examined.find("wrong", f"{event.said!r} (seq {event.seq}) is another end")
    index, event = ends[0]
    if event.said != expected:
        examined.find("wrong", f"it ended with {event.said!r} instead of {expected!r}")
    # Late lines are examined as such.
    if wrong := [told(event) for event in story[index + 1 :] if event.late_of is None]:
        after = [told(event) for event in story[index:][: AROUND + 1]]
        examined.find("wrong", f"{wrong[0]!r} came after the end", after)


def _around(texts: Sequence[str], index: int) -> tuple[str, ...]:
    marked = [f"> {text}" if i == index else text for i, text in enumerate(texts)]
    return tuple(marked[max(0, index - AROUND) : index + AROUND + 1])


def told(event: Event) -> str:
    return f"{event.seq} {'progress ' if event.is_progress else ''}{event.said}"


def event_of(name: str, data: dict[str, Any], at: float = 0.0) -> Event | None:
    """A job event as the transcript has it; None for one that a client does not know."""
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
            said = failed(data["error"], data["message"], data["reason"])
            return Event(seq, said, is_end=True, at=at)
    return None
