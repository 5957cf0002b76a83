"""What a run comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from bench.soak.transcript import Finding, Kind

SHOWN: Final = 8  # findings that are printed in full

Transport = Literal["redis", "sentinel", "cluster", "rabbitmq"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("redis", "sentinel", "cluster", "rabbitmq")


@dataclass(frozen=True)
class Options:
    transport: Transport = "redis"
    seconds: float = 60.0
    seed: int = 1
    jobs: int = 8  # at a time
    clients: int = 24
    keep: bool = False  # the logs, also if all is well


@dataclass(frozen=True)
class Problem:
    """A finding, and whose it is."""

    client: str
    job_id: str
    finding: Finding


def described(problems: Iterable[Problem]) -> list[str]:
    """For people. What the record has already got wrong, all that follow the job were sent so."""
    groups: dict[tuple[str, Kind, str], list[Problem]] = {}
    for problem in problems:
        finding = problem.finding
        groups.setdefault((problem.job_id, finding.kind, finding.what), []).append(problem)
    texts: list[str] = []
    for (job_id, kind, what), group in groups.items():
        clients = ", ".join(problem.client for problem in group)
        place = "".join(f"\n    {line}" for line in group[0].finding.place)
        texts.append(f"{kind}: {what}\n  {job_id}, {clients}{place}")
    return texts


@dataclass
class Report:
    seed: int
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def found(self, kind: Kind) -> int:
        return sum(problem.finding.kind == kind for problem in self.problems)

    @property
    def lost(self) -> int:
        return self.found("lost")

    @property
    def repeated(self) -> int:
        return self.found("repeated")

    @property
    def reordered(self) -> int:
        return self.found("reordered")

    @property
    def wrong(self) -> int:
        return self.found("wrong")

    @property
    def server_errors(self) -> int:
        return self.counts["joins refused: internal_error"]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.server_errors

    def rows(self) -> list[tuple[str, int]]:
        """What happened, what was counted and what was found."""
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
        texts = described(self.problems)
        if len(texts) > SHOWN:
            texts[SHOWN:] = [f"and {len(texts) - SHOWN} more in {self.folder}/problems.txt"]
        return "\n\n".join(texts)


def comparison(reports: Sequence[tuple[str, Report]]) -> str:
    """A table in Markdown, with a column for each transport."""
    columns = [(name, dict(report.rows())) for name, report in reports]
    names = dict.fromkeys(name for _, rows in columns for name in rows)
    # The findings are last, also where one transport has rows that others do not.
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
