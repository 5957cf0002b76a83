from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobcast.settings import Settings
from tests.conftest import Valkey
from tests.integration.feeds.site import Options, Site, serving
from tests.support import SECRET, new_id


@pytest.fixture(params=["memory", "redis"])
def options(request: pytest.FixtureRequest, valkey: Valkey) -> Options:
    """Return a function that makes settings of a transport with feeds of its own."""
    url = valkey.url if request.param == "redis" else f"memory://{new_id()}"
    prefix = new_id("feeds")

    def make(**options: Any) -> Settings:
        values = {"url": url, "prefix": prefix, "jwt_secret": SECRET, "drain_seconds": 0}
        return Settings(**{**values, **options})

    return make


@pytest.fixture
async def site(options: Options) -> AsyncIterator[Site]:
    async with serving(options()) as site:
        yield site
