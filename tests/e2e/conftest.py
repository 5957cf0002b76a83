from __future__ import annotations

import pytest

from tests.e2e.stock import FOLDER
from tests.support.node import install_packages


@pytest.fixture(scope="session")
def package() -> None:
    """Install the dependencies of the stock JavaScript client."""
    install_packages(FOLDER)
