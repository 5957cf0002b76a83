"""Lines that come late: another try of their job has begun, or the job has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.soak.jobs import Script, line_of


def lines_of(script: Script, attempt: int) -> list[str]:
    """What one try of a job logs, in order."""
    steps = (script.steps[number] for number in script.run(attempt))
    return [line_of(line) for step in steps for line in step.lines]


def may_be_late(script: Script, said: str, attempt: int, before: Iterable[str]) -> bool:
    """Whether a line that is marked as one of this try may come after the statuses ``before``.

    It is sent after the end, too, if another worker publishes it only then.
    """
    if attempt not in script.attempts or said not in lines_of(script, attempt):
        return False
    return any(f"started {later}" in before for later in script.attempts if later > attempt)


def expected_late(script: Script, late: Iterable[str]) -> list[str]:
    """The lines that come late if these do: all that their try logs from the first of them on."""
    found = set(late)
    expected: list[str] = []
    for attempt in script.attempts:
        lines = lines_of(script, attempt)
        first = next((index for index, said in enumerate(lines) if said in found), len(lines))
        expected += lines[first:]
    return expected


def expected_in_time(script: Script, expected: Sequence[str], late: Iterable[str]) -> list[str]:
    """What is left of a transcript where these lines came late.

    The statuses that their try said after the first of them are not stored any more.
    """
    gone = set(expected_late(script, late))
    for attempt in script.attempts:
        lines = lines_of(script, attempt)
        if gone.intersection(lines):
            gone.add(f"retrying {attempt + 1}")
            if lines[0] in gone:
                gone.add(f"started {attempt}")
    return [said for said in expected if said not in gone]
