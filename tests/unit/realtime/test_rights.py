"""Rights of followers to a job whose record has changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jobcast.realtime.application_function import FunctionTimeout
from jobcast.realtime.rights import CHECKED_AT_ONCE, NOT_FOUND, UNDECIDED, SubjectRights
from jobcast.targets import JobTarget
from jobcast.tokens import Subject
from tests.support import TIMEOUT

TARGET = JobTarget(id="job", owner="bob")


class Always:
    """An authorizer that allows every request after one iteration of the event loop."""

    async def allows(self, *_: object) -> bool:
        await asyncio.sleep(0)
        return True


async def test_constant_token_refreshes_do_not_delay_other_followers() -> None:
    def subject_of(sid: str) -> Subject:
        return steady if sid == "steady" else Subject(sub="m", expires_at=time.time(), claims={})

    steady = Subject(sub="s", expires_at=0, claims={})
    authorizer: Any = Always()
    rights = SubjectRights(authorizer, subject_of, lambda *_: None)
    async with asyncio.timeout(TIMEOUT):
        refused = await rights.refused(TARGET, ["steady", "restless"])
    assert refused == {"restless": NOT_FOUND}


async def test_no_further_group_is_checked_after_a_timeout() -> None:
    checked: list[str] = []

    class Hanging:
        async def allows(self, subject: Subject, *_: object) -> bool:
            checked.append(subject.sub)
            if subject.sub == "0":
                raise FunctionTimeout("JOBCAST_AUTHORIZE", 10)
            return True

    sids = [str(number) for number in range(3 * CHECKED_AT_ONCE)]
    subjects = {sid: Subject(sub=sid, expires_at=0, claims={}) for sid in sids}
    authorizer: Any = Hanging()
    rights = SubjectRights(authorizer, subjects.get, lambda *_: None)
    refused = await rights.refused(TARGET, sids)
    assert checked == sids[:CHECKED_AT_ONCE]
    assert refused == dict.fromkeys(["0", *sids[CHECKED_AT_ONCE:]], UNDECIDED)
