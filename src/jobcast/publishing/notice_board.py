"""Shared memory through which a worker's main process passes requests to its pool's children.

The main process creates the board before the pool forks. A child reads it from its publisher's
thread while it runs a job, so that a silent task learns of its cancellation too.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator
from typing import Final

from msgspec import UNSET, structs

from jobcast.publishing.cancellation import active_runs, learn
from jobcast.transports.cancellation import Cancellation

POLL: Final = 0.25  # seconds between two looks at the board
SLOTS: Final = 256  # latest requests on the board
SLOT_SIZE: Final = 8192  # bytes

_COUNT: Final = struct.Struct("=Q")
_ENTRY: Final = struct.Struct("=QI")  # number of the entry, 0 while it is written; size in bytes


class NoticeBoard:
    """The latest requests to cancel jobs. One process writes, its forks read."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOT_SIZE * (SLOTS + 1))
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def is_inherited(self) -> bool:
        """Whether this is a fork of the process that writes to the board."""
        return os.getpid() != self._pid

    @property
    def count(self) -> int:
        """The number of requests so far."""
        return int(_COUNT.unpack_from(self._memory, 0)[0])

    def post(self, cancellation: Cancellation) -> None:
        """Add a request. A message that is too long for the board is truncated."""
        # The children do not need these.
        cancellation = structs.replace(cancellation, task="", owner=UNSET)
        data = cancellation.encode()
        if len(data) > SLOT_SIZE - _ENTRY.size:
            data = structs.replace(cancellation, message=cancellation.message[:200]).encode()
        if len(data) > SLOT_SIZE - _ENTRY.size:
            data = structs.replace(cancellation, message="", by=None).encode()
        with self._lock:
            number = self.count + 1
            at = _offset(number)
            _ENTRY.pack_into(self._memory, at, 0, 0)
            self._memory[at + _ENTRY.size : at + _ENTRY.size + len(data)] = data
            _ENTRY.pack_into(self._memory, at, number, len(data))
            _COUNT.pack_into(self._memory, 0, number)

    def after(self, number: int) -> Iterator[Cancellation]:
        """Yield the requests after a number, as far as they are still on the board."""
        count = self.count
        for wanted in range(max(number, count - SLOTS) + 1, count + 1):
            at = _offset(wanted)
            found, size = _ENTRY.unpack_from(self._memory, at)
            data = self._memory[at + _ENTRY.size : at + _ENTRY.size + size]
            # The writer may have replaced the entry meanwhile.
            if found == wanted and _ENTRY.unpack_from(self._memory, at) == (found, size):
                yield Cancellation.decode(data)

    def may_miss(self, number: int) -> bool:
        """Return whether a request after a number may no longer be on the board."""
        # The next request, which may be under way, replaces the oldest one.
        return self.count - SLOTS >= number


class BoardReader:
    """A child's side of the board."""

    def __init__(self, board: NoticeBoard) -> None:
        self._board = board
        self._read = 0
        self._latest = 0  # the latest request that any run has read
        self._generation = -1

    @property
    def due_in(self) -> float | None:
        """Seconds until the next look; None while no job runs in this process."""
        return POLL if len(active_runs) else None

    def read(self) -> bool:
        """Pass on the new requests, and for a new run all of them.

        Returns:
            Whether requests may have been overwritten before this process has read them.
        """
        generation = active_runs.generation
        if generation != self._generation:
            self._generation, self._read = generation, 0
        count = self._board.count
        if count == self._read:
            return False
        for cancellation in self._board.after(self._read):
            learn(cancellation)
        misses = count != self._latest and self._board.may_miss(self._latest)
        self._read = self._latest = count
        return misses


def _offset(number: int) -> int:
    return SLOT_SIZE * (1 + number % SLOTS)


_boards: list[NoticeBoard] = []  # at most one


def create_board() -> NoticeBoard:
    """Create the board of this process, before it forks; return the existing one after that."""
    if not _boards or _boards[0].is_inherited:
        _boards[:] = [NoticeBoard()]
    return _boards[0]


def inherited_reader() -> BoardReader | None:
    """Return a reader of the board of the parent process, if this is the child of a pool."""
    return BoardReader(_boards[0]) if _boards and _boards[0].is_inherited else None
