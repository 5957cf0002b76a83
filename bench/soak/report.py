"""The report of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from bench.soak.transcript import Finding, Kind

MAX_DETAILS: Final = 8  # findings printed in full

Transport = Literal["redis", "sentinel", "cluster", "rabbitmq"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("redis", "sentinel", "cluster", "rabbitmq")


@dataclass(frozen=True)
class Options:
    transport: Transport = "redis"
    seconds: float = 60.0
    seed: int = 1
    jobs: int = 8  # concurrent
    clients: int = 24
    keep: bool = False  # keep the logs of a successful run


@dataclass(frozen=True)
class Problem:
    """A finding in the transcript of one client."""

    client: str
    job_id: str
    finding: Finding


def describe(problems: Iterable[Problem]) -> list[str]:
    """Describe problems, grouped by finding: all followers of a job receive a wrong record."""
    groups: dict[tuple[str, Kind, str], list[Problem]] = {}
    for problem in problems:
        finding = problem.finding
        groups.setdefault((problem.job_id, finding.kind, finding.text), []).append(problem)
    descriptions: list[str] = []
    for (job_id, kind, text), group in groups.items():
        clients = ", ".join(problem.client for problem in group)
        context = "".join(f"\n    {line}" for line in group[0].finding.context)
        descriptions.append(f"{kind}: {text}\n  {job_id}, {clients}{context}")
    return descriptions


@dataclass
class Report:
    seed: int
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def count(self, kind: Kind) -> int:
        return sum(problem.finding.kind == kind for problem in self.problems)

    @property
    def lost(self) -> int:
        return self.count("lost")

    @property
    def repeated(self) -> int:
        return self.count("repeated")

    @property
    def reordered(self) -> int:
        return self.count("reordered")

    @property
    def wrong(self) -> int:
        return self.count("wrong")

    @property
    def server_errors(self) -> int:
        return self.counts["joins refused: internal_error"]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.server_errors

    def rows(self) -> list[tuple[str, int]]:
        """Return the numbers of faults, of other events, and of findings."""
        return [
            ("seed", self.seed),
            *((f"fault: {kind}", count) for kind, count in self.faults.items()),
            *self.counts.items(),
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("reordered", self.reordered),
            ("wrong endings", self.wrong),
        ]

    def table(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {number:>9}" for name, number in rows)

    def details(self) -> str:
        problems = describe(self.problems)
        if len(problems) > MAX_DETAILS:
            problems[MAX_DETAILS:] = [
                f"and {len(problems) - MAX_DETAILS} more in {self.folder}/problems.txt"
            ]
        return "\n\n".join(problems)


def comparison(reports: Sequence[tuple[str, Report]]) -> str:
    """Return a table in Markdown with a column for each transport."""
    columns = [(name, dict(report.rows())) for name, report in reports]
    names = dict.fromkeys(name for _, rows in columns for name in rows)
    # The findings come last, even if the transports have different rows.
    last = ("lost", "repeated", "reordered", "wrong endings")
    ordered = [*(name for name in names if name not in last), *last]
    lines = [
        "| | " + " | ".join(name for name, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in ordered:
        cells = (f"{rows[name]:,}" if name in rows else "" for _, rows in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
