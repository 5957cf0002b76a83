from __future__ import annotations

import pytest

from tests.e2e.stock import install


@pytest.fixture(scope="session")
def package() -> None:
    """The stock client's dependencies."""
    install()
