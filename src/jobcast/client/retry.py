"""The pauses of a client before it connects again or repeats a request."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from jobcast.aio import RANDOM, Backoff, jittered
from jobcast.events import Refusal

FIRST_DELAY: Final = 0.1  # maximum seconds before the first retry
LONGEST_DELAY: Final = 5.0  # maximum seconds between two attempts
LONGEST_PAUSE: Final = 60.0  # maximum seconds that a server's retry_after can delay a request
PAUSE_SPREAD: Final = 0.25  # maximum jitter, as a fraction of a pause

#: Codes of refusals after which the client repeats the request.
RETRYABLE_CODES: Final = frozenset({"unavailable", "internal_error", "rate_limited"})


def client_backoff() -> Backoff:
    """Return the backoff of a client's connections and requests."""
    return Backoff(FIRST_DELAY, LONGEST_DELAY)


def pause_before_retry(refusal: Refusal, delay: float) -> float:
    """Return the seconds to wait before a refused request is repeated.

    Args:
        refusal: the server's refusal. Its ``retry_after``, up to ``LONGEST_PAUSE``, is the minimum.
        delay: the client's own backoff, which is the maximum without a ``retry_after``.
    """
    retry_after = 0.0 if refusal.retry_after is UNSET else refusal.retry_after
    least = min(LONGEST_PAUSE, max(0.0, retry_after))
    return max(jittered(least, 1.0, 1 + PAUSE_SPREAD), RANDOM.uniform(FIRST_DELAY, delay))
