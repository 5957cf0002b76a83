"""The report of a chaos run of feeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MAX_DETAILS: Final = 8  # problems printed in full


@dataclass(frozen=True)
class Options:
    jobs: int = 1000
    owners: int = 20
    seconds: float = 180.0  # of faults
    seed: int = 1
    keep: bool = False  # keep the logs of a successful run


@dataclass
class Report:
    options: Options
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    settled_after: float = 0.0  # seconds from the quiet of all records until all lists agree
    foreign: list[str] = field(default_factory=list)  # jobs that a follower should not receive
    differences: list[str] = field(default_factory=list)  # between lists and records
    records: list[str] = field(default_factory=list)  # without an ending or the sent description

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def problems(self) -> list[str]:
        return self.foreign + self.differences + self.records

    def table(self) -> str:
        rows = [
            ("seed", str(self.options.seed)),
            *((f"fault: {kind}", str(count)) for kind, count in sorted(self.faults.items())),
            *((f"records: {kind}", str(count)) for kind, count in sorted(self.endings.items())),
            *((name, str(count)) for name, count in sorted(self.counts.items())),
            ("seconds until all lists agreed", f"{self.settled_after:.1f}"),
            ("jobs and messages that were not for their follower", str(len(self.foreign))),
            ("differences between lists and records", str(len(self.differences))),
            ("records without an ending or their description", str(len(self.records))),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value:>9}" for name, value in rows)

    def details(self) -> str:
        shown = self.problems[:MAX_DETAILS]
        if len(self.problems) > MAX_DETAILS:
            shown.append(f"and {len(self.problems) - MAX_DETAILS} more in {self.folder}")
        return "\n\n".join(shown)
