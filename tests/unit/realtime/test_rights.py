"""Who may go on following a job whose record has changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jobcast.realtime.authorization import RuleTimeout
from jobcast.realtime.rights import CHECKED_AT_ONCE, NOT_FOUND, UNDECIDED, SubjectRights
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


async def test_after_an_answer_that_did_not_come_in_time_no_further_group_is_asked() -> None:
    asked: list[str] = []

    class Hanging:
        async def allows(self, subject: Subject, *_: object) -> bool:
            asked.append(subject.sub)
            if subject.sub == "0":
                raise RuleTimeout(10)
            return True

    sids = [str(number) for number in range(3 * CHECKED_AT_ONCE)]
    subjects = {sid: Subject(sub=sid, expires_at=0, claims={}) for sid in sids}
    authorizer: Any = Hanging()
    rights = SubjectRights(authorizer, subjects.get, lambda *_: None)
    refused = await rights.refused("job", sids, "bob")
    assert asked == sids[:CHECKED_AT_ONCE]
    assert refused == dict.fromkeys(["0", *sids[CHECKED_AT_ONCE:]], UNDECIDED)
