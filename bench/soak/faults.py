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
        """Go on until ``time.monotonic()`` is there, and everything is mended."""
        while time.monotonic() < until:
            async with asyncio.TaskGroup() as group:
                for kind in self._rng.sample([*self._kinds], len(self._kinds)):
                    await asyncio.sleep(self._rng.uniform(*GAP))
                    if time.monotonic() >= until:
                        break
                    group.create_task(self._inject(kind))

    async def _inject(self, kind: str) -> None:
        self._note(kind)
        if await self._kinds[kind]():
            self.injected[kind] += 1
        self._note(f"{kind}: done")
