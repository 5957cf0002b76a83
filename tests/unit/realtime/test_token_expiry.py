"""The pure parts of the gateway."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobcast.realtime.token_expiry import EXPIRY_WARNING, until_warning


@given(left=st.floats(min_value=2 * EXPIRY_WARNING, max_value=1e6))
def test_a_client_is_warned_half_a_minute_before_its_token_expires(left: float) -> None:
    assert until_warning(left) == left - EXPIRY_WARNING


@given(left=st.floats(min_value=0, max_value=2 * EXPIRY_WARNING, allow_subnormal=False))
def test_a_token_that_lives_shortly_is_not_renewed_without_pause(left: float) -> None:
    assert until_warning(left) == left / 2


def test_a_token_that_has_just_expired_is_told_at_once() -> None:
    assert until_warning(-3.0) == 0
