"""A bounded buffer for messages that arrive while a room reads its history."""

from __future__ import annotations

from collections import deque
from typing import Final

from jobcast.transports.base import Message

MAX_MESSAGES: Final = 10_000
MAX_CHARACTERS: Final = 8 * 1024 * 1024  # of all packets together


class Recent:
    """The messages since the read of a history began, oldest first.

    Beyond its bounds the buffer drops the oldest messages. The history contains a dropped message:
    the room detects the gap and reads again.

    Args:
        max_messages: the maximum number of messages.
        max_characters: the maximum size of all packets together, in characters.
    """

    def __init__(
        self, max_messages: int = MAX_MESSAGES, max_characters: int = MAX_CHARACTERS
    ) -> None:
        self._max_messages = max_messages
        self._max_characters = max_characters
        self._messages: deque[Message] = deque()
        self._characters = 0
        self._first = 0  # number of messages that arrived before the oldest one in the buffer

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def arrived(self) -> int:
        """The number of messages so far, as a mark for :meth:`take_before`."""
        return self._first + len(self._messages)

    def add(self, message: Message) -> None:
        self._messages.append(message)
        self._characters += len(message.packet)
        while self._messages and (
            len(self._messages) > self._max_messages or self._characters > self._max_characters
        ):
            self._drop_oldest()

    def clear(self) -> None:
        self._first += len(self._messages)
        self._messages.clear()
        self._characters = 0

    def take_before(self, mark: int) -> list[Message]:
        """Remove and return the messages that arrived before a mark."""
        if not self._messages:
            return []
        return [self._drop_oldest() for _ in range(min(len(self), mark - self._first))]

    def take(self) -> list[Message]:
        """Remove and return all messages, oldest first."""
        return self.take_before(self.arrived)

    def within(self, epoch: str, after: int, up_to: int) -> list[Message]:
        """Return the messages of a record with ``after < seq <= up_to``, ordered by ``seq``."""
        if not self._messages:
            return []
        found = {
            message.seq: message
            for message in self._messages
            if message.epoch == epoch and after < message.seq <= up_to
        }
        return [found[seq] for seq in sorted(found)]

    def _drop_oldest(self) -> Message:
        message = self._messages.popleft()
        self._characters -= len(message.packet)
        self._first += 1
        return message
