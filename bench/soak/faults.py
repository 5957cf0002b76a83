"""Breaks things at random moments, each kind as often as the others."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

Fault = Callable[[], Awaitable[bool]]  # returns whether there was something to break
Kinds = Mapping[str, Fault]

GAP: Final = (0.2, 1.2)  # seconds between two faults
OVERTIME: Final = 30.0  # seconds


class Faults:
    """Injects faults in rounds: each has every kind once, in a random order.

    Args:
        kinds: what may happen. Each mends what it has broken before it returns.
        rng: chooses.
        note: is called with what happens.
    """

    def __init__(self, kinds: Kinds, rng: random.Random, note: Callable[[str], None]) -> None:
        self.injected: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._kinds = kinds
        self._rng = rng
        self._note = note

    async def run(self, until: float) -> None:
        """Go on until ``time.monotonic()`` is there, and everything is mended.

        A kind that has not happened by then, as on a busy machine, gets ``OVERTIME`` seconds more.
        """
        while kinds := [kind for kind in self._kinds if self._is_due(kind, until)]:
            async with asyncio.TaskGroup() as group:
                for kind in self._rng.sample(kinds, len(kinds)):
                    await asyncio.sleep(self._rng.uniform(*GAP))
                    if self._is_due(kind, until):
                        group.create_task(self._inject(kind))

    def _is_due(self, kind: str, until: float) -> bool:
        now = time.monotonic()
        return now < until or (not self.injected[kind] and now < until + OVERTIME)

    async def _inject(self, kind: str) -> None:
        self._note(kind)
        if await self._kinds[kind]():
            self.injected[kind] += 1
        self._note(f"{kind}: done")
