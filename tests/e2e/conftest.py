from __future__ import annotations

import pytest

from tests.e2e.stock import install


@pytest.fixture(scope="session")
def package() -> None:
    """Install the dependencies of the stock JavaScript client."""
    install()
