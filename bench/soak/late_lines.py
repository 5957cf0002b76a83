"""Late lines: log lines that arrive after a later attempt has started or the job has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from bench.soak.jobs import Script, line_of


def lines_of_attempt(script: Script, attempt: int) -> list[str]:
    """Return the lines that one attempt of a job logs, in order."""
    steps = (script.steps[number] for number in script.run(attempt))
    return [line_of(line) for step in steps for line in step.lines]


def may_be_late(script: Script, line: str, attempt: int, before: Iterable[str]) -> bool:
    """Return whether a late line of an attempt may arrive after the statuses ``before``.

    The line may even follow the end of the job, because another worker publishes it.
    """
    if attempt not in script.attempts or line not in lines_of_attempt(script, attempt):
        return False
    return any(f"started {later}" in before for later in script.attempts if later > attempt)


def expected_late(script: Script, late: Iterable[str]) -> list[str]:
    """Return the expected late lines: all lines of an attempt from its first late line on."""
    found = set(late)
    expected: list[str] = []
    for attempt in script.attempts:
        lines = lines_of_attempt(script, attempt)
        first = next((index for index, line in enumerate(lines) if line in found), len(lines))
        expected += lines[first:]
    return expected


def expected_on_time(
    script: Script, expected: Sequence[str], late: Iterable[str], received: Collection[str]
) -> list[str]:
    """Return a transcript without the late lines.

    An attempt's statuses after its first late line are missing, too: the store refuses them. If its
    first line is late, the start may have been sent before, in a batch that the store has executed
    in part.
    """
    missing = set(expected_late(script, late))
    for attempt in script.attempts:
        lines = lines_of_attempt(script, attempt)
        if missing.intersection(lines):
            missing.add(f"retrying {attempt + 1}")
            if lines[0] in missing and f"started {attempt}" not in received:
                missing.add(f"started {attempt}")
    return [text for text in expected if text not in missing]
