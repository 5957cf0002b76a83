"""Inject faults at random times, each kind equally often."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

Fault = Callable[[], Awaitable[bool]]  # returns whether the fault was possible
FaultKinds = Mapping[str, Fault]

PAUSE: Final = (0.2, 1.2)  # seconds between two faults
OVERTIME: Final = 30.0  # seconds


class FaultInjector:
    """Injects faults in rounds; a round has every kind once, in random order.

    Args:
        kinds: the possible faults. Each repairs its damage before it returns.
        rng: the source of all choices.
        log: called with the start and the end of each fault.
    """

    def __init__(self, kinds: FaultKinds, rng: random.Random, log: Callable[[str], None]) -> None:
        self.injected: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._kinds = kinds
        self._rng = rng
        self._log = log

    async def run(self, until: float) -> None:
        """Inject faults until ``time.monotonic()`` reaches ``until`` and all damage is repaired.

        A kind that has not occurred by then, as on a busy machine, gets ``OVERTIME`` more seconds.
        """
        while kinds := [kind for kind in self._kinds if self._is_due(kind, until)]:
            async with asyncio.TaskGroup() as group:
                for kind in self._rng.sample(kinds, len(kinds)):
                    await asyncio.sleep(self._rng.uniform(*PAUSE))
                    if self._is_due(kind, until):
                        group.create_task(self._inject(kind))

    def _is_due(self, kind: str, until: float) -> bool:
        now = time.monotonic()
        return now < until or (not self.injected[kind] and now < until + OVERTIME)

    async def _inject(self, kind: str) -> None:
        self._log(kind)
        if await self._kinds[kind]():
            self.injected[kind] += 1
        self._log(f"{kind}: done")
