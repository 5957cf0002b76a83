"""Who may go on following a job whose record has changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jobcast.realtime.rights import NOT_FOUND, SubjectRights
from jobcast.tokens import Subject
from tests.support import TIMEOUT


class Always:
    """A rule that allows everything, in a turn of the loop."""

    async def allows(self, *_: object) -> bool:
        await asyncio.sleep(0)
        return True


async def test_a_connection_that_refreshes_all_the_time_does_not_hold_up_the_others() -> None:
    def subject_of(sid: str) -> Subject:
        return steady if sid == "steady" else Subject(sub="m", expires_at=time.time(), claims={})

    steady = Subject(sub="s", expires_at=0, claims={})
    authorizer: Any = Always()
    rights = SubjectRights(authorizer, subject_of, lambda *_: None)
    async with asyncio.timeout(TIMEOUT):
        refused = await rights.refused("job", ["steady", "restless"], "bob")
    assert refused == {"restless": NOT_FOUND}
