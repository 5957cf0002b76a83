"""One connection sends as much as it can."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.hostile.conftest import (
    ANSWERED,
    LOG_LINES,
    Token,
    Undisturbed,
    cancelled,
    ended,
    goes_on,
    held,
)
from tests.support import TIMEOUT, eventually, wire
from tests.support.attacks.catalogue import ATTACKS, BY_NAME, Attack, Seen, Target, flood_of
from tests.support.attacks.server import Served
from tests.support.wire import WebSocket, event, filled, frame, text

HELD = [attack for attack in ATTACKS if attack.row in ("H1", "H4")]
ENDED = [attack for attack in ATTACKS if attack.row in ("H2", "H3")]

OTHER_PACKETS = (
    text("6"), text("2probe"), text("40/jobs,{}"), text("41/x,"), text("41"), text("1"),
    event("x", ack=1), frame(wire.CLOSE, b"\x03\xe8"),
)  # fmt: skip


@pytest.mark.parametrize("attack", HELD, ids=lambda attack: attack.name)
async def test_a_flood_is_held_or_ended_and_costs_an_innocent_client_nothing(
    served: Served, target: Target, undisturbed: Undisturbed, attack: Attack
) -> None:
    async with undisturbed(served) as client:
        lines = len(served.log.splitlines())
        flood = asyncio.create_task(held(attack, target))
        await goes_on(client)
        await flood
        assert len(served.log.splitlines()) - lines < (
            ANSWERED if attack.needs_token else LOG_LINES
        )


@pytest.mark.parametrize("attack", ENDED, ids=lambda attack: attack.name)
async def test_what_no_client_sends_ends_its_connection(
    served: Served, target: Target, undisturbed: Undisturbed, attack: Attack
) -> None:
    async with undisturbed(served) as client:
        lines = len(served.log.splitlines())
        attacking = asyncio.create_task(ended(attack, target))
        await goes_on(client)
        await attacking
        assert len(served.log.splitlines()) - lines < LOG_LINES


async def test_floods_that_go_on_are_ended(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    """All of them at once, each by one connection."""
    async with undisturbed(served) as client:
        floods = [asyncio.create_task(ended(attack, target)) for attack in HELD]
        await goes_on(client)
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
        await goes_on(client, 50)
        await cancelled(*tasks)


async def test_a_client_connects_while_others_flood(
    served: Served, target: Target, undisturbed: Undisturbed, token: Token
) -> None:
    async with undisturbed(served):
        seen = Seen()
        tasks = [asyncio.create_task(BY_NAME["pongs"].persist(target, seen)) for _ in range(5)]
        await eventually(lambda: seen.sent > 0, "flood")
        async with asyncio.timeout(TIMEOUT), WebSocket(served.url) as other:
            await other.greet(token("other"))
            assert (await other.ask("leave_job", {"job_id": "any"}))["ok"]
        await cancelled(*tasks)


@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "stranger"])
async def test_other_packets_flood_no_better(
    served: Served, target: Target, undisturbed: Undisturbed, authenticated: bool
) -> None:
    """All of them at once, each by one connection."""
    lives = [flood_of(filled(packet), token=authenticated) for packet in OTHER_PACKETS]
    attacks = [Attack("packets", "H1", "packets", life, authenticated) for life in lives]
    async with undisturbed(served) as client:
        floods = [asyncio.create_task(held(attack, target)) for attack in attacks]
        await goes_on(client)
        await asyncio.gather(*floods)
