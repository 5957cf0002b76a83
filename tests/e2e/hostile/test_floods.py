"""One connection sends as much as it can."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.hostile.conftest import (
    AUTHENTICATED_LOG_LINES,
    LOG_LINES,
    Token,
    Undisturbed,
    attack_until_closed,
    attack_until_contained,
    cancel_attacks,
    wait_for_events,
)
from tests.support import TIMEOUT, eventually, wire
from tests.support.attacks.attack import Attack, Seen, Target
from tests.support.attacks.catalogue import ATTACKS, BY_NAME, flood_of
from tests.support.attacks.server import Served
from tests.support.wire import WebSocket, event, filled, frame, text

CONTAINED = [attack for attack in ATTACKS if attack.row in ("H1", "H4")]
CLOSED = [attack for attack in ATTACKS if attack.row in ("H2", "H3")]

OTHER_PACKETS = (
    text("6"), text("2probe"), text("40/jobs,{}"), text("41/x,"), text("41"), text("1"),
    event("x", ack=1), frame(wire.CLOSE, b"\x03\xe8"),
)  # fmt: skip


@pytest.mark.parametrize("attack", CONTAINED, ids=lambda attack: attack.name)
async def test_flood_is_throttled_or_closed_and_does_not_affect_an_innocent_client(
    served: Served, target: Target, undisturbed: Undisturbed, attack: Attack
) -> None:
    async with undisturbed(served) as client:
        lines = len(served.log.splitlines())
        flood = asyncio.create_task(attack_until_contained(attack, target))
        await wait_for_events(client)
        await flood
        assert len(served.log.splitlines()) - lines < (
            AUTHENTICATED_LOG_LINES if attack.needs_token else LOG_LINES
        )


@pytest.mark.parametrize("attack", CLOSED, ids=lambda attack: attack.name)
async def test_packet_that_no_client_sends_closes_its_connection(
    served: Served, target: Target, undisturbed: Undisturbed, attack: Attack
) -> None:
    async with undisturbed(served) as client:
        lines = len(served.log.splitlines())
        attacking = asyncio.create_task(attack_until_closed(attack, target))
        await wait_for_events(client)
        await attacking
        assert len(served.log.splitlines()) - lines < LOG_LINES


async def test_continued_floods_are_closed(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    """All floods run at once, each over one connection."""
    async with undisturbed(served) as client:
        floods = [asyncio.create_task(attack_until_closed(attack, target)) for attack in CONTAINED]
        await wait_for_events(client)
        await asyncio.gather(*floods)


async def test_ten_connections_without_a_token_do_not_stop_an_innocent_client(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client:
        seen = Seen()
        names = ("pongs", "namespaces", "attachments", "pings", "upgrades")
        floods = [BY_NAME[name].persist(target, seen) for name in names for _ in range(2)]
        tasks = [asyncio.create_task(flood) for flood in floods]
        await eventually(lambda: seen.closed >= 10, "end of ten connections")
        await wait_for_events(client, 50)
        await cancel_attacks(*tasks)


async def test_client_connects_while_others_flood(
    served: Served, target: Target, undisturbed: Undisturbed, token: Token
) -> None:
    async with undisturbed(served):
        seen = Seen()
        tasks = [asyncio.create_task(BY_NAME["pongs"].persist(target, seen)) for _ in range(5)]
        await eventually(lambda: seen.sent > 0, "flood")
        async with asyncio.timeout(TIMEOUT), WebSocket(served.url) as other:
            await other.greet(token("other"))
            assert (await other.ask("leave_job", {"job_id": "any"}))["ok"]
        await cancel_attacks(*tasks)


@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "unauthenticated"])
async def test_floods_of_other_packets_are_throttled_or_closed(
    served: Served, target: Target, undisturbed: Undisturbed, authenticated: bool
) -> None:
    """All floods run at once, each over one connection."""
    floods_of_packets = [flood_of(filled(packet), token=authenticated) for packet in OTHER_PACKETS]
    attacks = [
        Attack("packets", "H1", "packets", flood, authenticated) for flood in floods_of_packets
    ]
    async with undisturbed(served) as client:
        floods = [asyncio.create_task(attack_until_contained(attack, target)) for attack in attacks]
        await wait_for_events(client)
        await asyncio.gather(*floods)
