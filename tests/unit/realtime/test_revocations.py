"""Revocations: the tokens they deny, and their propagation to a process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobcast.aio import cancel_and_wait
from jobcast.errors import TokenError, TransportUnavailable
from jobcast.realtime import revocations as watching
from jobcast.realtime.revocations import DenyList, RevocationWatch
from jobcast.revocation import revoke
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import open_manager
from jobcast.transports.revocations import InMemoryRevocations, Revocation
from tests.support import eventually, new_id

LATER = time.time() + 3600


def subject(sub: str = "alice", **claims: Any) -> Subject:
    return Subject(sub=sub, expires_at=LATER, claims={"sub": sub, **claims})


@pytest.mark.parametrize(
    ("holder", "denied"),
    [
        (subject(iat=99), True),
        (subject(iat=100), True),
        (subject(iat=100.5), True),
        (subject(iat=101), False),
        (subject(), True),
        (subject("bob", iat=99), False),
        (subject("bob", iat=99, jti="one"), True),
        (subject("bob", iat=101, jti="one"), True),
        (subject("bob", jti="two"), False),
        (subject("bob", jti="alice"), False),
    ],
)
def test_revocation_denies_one_token_or_earlier_tokens_of_a_subject(
    holder: Subject, denied: bool
) -> None:
    deny_list = DenyList()
    assert deny_list.add(
        [
            Revocation(sub="alice", before=100.5, until=LATER),
            Revocation(sub="alice", before=50, until=LATER + 1),
            Revocation(jti="one", until=LATER),
        ]
    )
    assert deny_list.denies(holder) is denied
    if denied:
        with pytest.raises(TokenError) as caught:
            deny_list.check(holder)
        assert caught.value.code == "token_revoked"
    else:
        deny_list.check(holder)


def test_known_revocation_is_not_reported_as_new() -> None:
    deny_list = DenyList()
    revocations = [
        Revocation(sub="alice", before=100, until=LATER), Revocation(jti="one", until=LATER),
    ]  # fmt: skip
    assert deny_list.add(revocations)
    assert not deny_list.add(revocations)
    assert not deny_list.add([Revocation(sub="alice", before=99, until=LATER)])
    assert deny_list.add([Revocation(sub="alice", before=101, until=LATER)])


def test_revocation_is_removed_after_its_tokens_expired() -> None:
    now = [1000.0]
    deny_list = DenyList(lambda: now[0])
    deny_list.add(
        [Revocation(sub="alice", before=100, until=2000), Revocation(jti="one", until=3000)]
    )
    for at, denied in ((1999, [True, True]), (2001, [False, True]), (3001, [False, False])):
        now[0] = at
        deny_list.forget_expired()
        holders = subject(iat=1), subject("bob", jti="one")
        assert [deny_list.denies(holder) for holder in holders] == denied


def test_revocations_in_memory_are_bounded_and_expire() -> None:
    now = [0.0]
    book = InMemoryRevocations(lambda: now[0], limit=3)
    kept = [Revocation(jti=str(n), until=10 + n) for n in range(5)]
    for revocation in [*kept, *kept[2:]]:
        book.add(revocation)
    assert book.in_force() == kept[2:]
    now[0] = 12
    assert book.in_force() == kept[3:]


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"{}", b'{"until":1}', b'{"jti":"a","sub":"b","until":1}',
             b'{"jti":7,"until":1}', b'{"jti":"a"}', b"[" * 10_000],
)  # fmt: skip
def test_invalid_message_is_not_decoded_as_revocation(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a revocation"):
        Revocation.decode(data)


def test_revocation_round_trip() -> None:
    for revocation in (
        Revocation(sub="al\u0069ce \u00e9\n", before=1.5, until=2.5), Revocation(jti="x", until=7),
    ):  # fmt: skip
        assert Revocation.decode(revocation.encode()) == revocation


@pytest.mark.parametrize("target", [{}, {"sub": ""}, {"jti": ""}, {"sub": "a", "jti": "b"}])
def test_revoke_requires_either_subject_or_token(target: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give either sub"):
        revoke(**target, settings=Settings(url=f"memory://{new_id()}"))  # type: ignore[arg-type]


async def test_numeric_subject_is_converted_to_its_digits() -> None:
    settings = Settings(url=f"memory://{new_id()}", jwt_max_lifetime=600)
    now = time.time()
    revocation = revoke(sub=42, settings=settings)
    assert (revocation.sub, revocation.jti) == ("42", None)
    assert now <= revocation.before <= time.time()
    assert now + 600 <= revocation.until <= time.time() + 700
    assert revoke(sub=42, before=7, ttl=5, settings=settings).before == 7
    source: Any = open_manager(settings.url).source
    assert revocation in await source.revocations()


class Flaky:
    """A source of revocations whose reads can fail."""

    def __init__(self) -> None:
        self.kept: list[Revocation] = []
        self.problem: Exception | None = None
        self.reads = 0

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        self.publish = on_revocation

    async def revocations(self) -> list[Revocation]:
        self.reads += 1
        if self.problem is not None:
            raise self.problem
        return list(self.kept)


async def test_watch_continues_after_any_read_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RETRY_DELAY", 0)
    monkeypatch.setattr(watching, "RELOAD_INTERVAL", 0)
    source, deny_list, added = Flaky(), DenyList(), list[None]()
    source.problem = TransportUnavailable("not now")
    watch = RevocationWatch(source, deny_list, lambda: added.append(None))
    task = asyncio.create_task(watch.run())
    await eventually(lambda: source.reads > 2, "further reads")
    # A revocation from a message needs no read.
    source.publish(Revocation(jti="live", until=LATER))
    assert (len(added), deny_list.denies(subject(jti="live"))) == (1, True)
    source.problem = RuntimeError("a bug")
    reads = source.reads
    await eventually(lambda: source.reads > reads + 2, "further reads")
    source.kept = [Revocation(jti="kept", until=LATER)]
    source.problem = None
    # No message announced this revocation, so the watch has to read it.
    await eventually(lambda: deny_list.denies(subject(jti="kept")), "revocation")
    assert len(added) == 2
    assert deny_list.denies(subject(jti="live"))
    await cancel_and_wait(task)
