"""The time of the warning before a token expires."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobcast.realtime.token_expiry import EXPIRY_WARNING, until_warning


@given(left=st.floats(min_value=2 * EXPIRY_WARNING, max_value=1e6))
def test_client_is_warned_half_a_minute_before_token_expiry(left: float) -> None:
    assert until_warning(left) == left - EXPIRY_WARNING


@given(left=st.floats(min_value=0, max_value=2 * EXPIRY_WARNING, allow_subnormal=False))
def test_warning_for_short_lived_token_waits_half_its_lifetime(left: float) -> None:
    assert until_warning(left) == left / 2


def test_warning_for_expired_token_is_immediate() -> None:
    assert until_warning(-3.0) == 0
