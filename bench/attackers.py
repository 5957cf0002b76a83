"""Attackers in a process of their own, so that they cost the innocent client nothing.

python -m bench.attackers NAME --url http://127.0.0.1:8000 --connections 10 --seconds 8

The environment has the token (ATTACK_TOKEN) and the job with a long history (ATTACK_JOB). What the
attackers have seen is printed as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource

from tests.support.attacks.catalogue import BY_NAME, Attack, Seen, Target


async def attack(one: Attack, target: Target, connections: int, seconds: float) -> Seen:
    """Attack for some seconds."""
    seen = Seen()
    tasks = [asyncio.create_task(one.persist(target, seen)) for _ in range(connections)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        await task  # an attacker that fails by itself attacks nobody
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.attackers")
    parser.add_argument("name", choices=sorted(BY_NAME))
    parser.add_argument("--url", required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = Target(options.url, os.environ["ATTACK_TOKEN"], os.environ["ATTACK_JOB"])
    seen = asyncio.run(attack(BY_NAME[options.name], target, options.connections, options.seconds))
    print(json.dumps(vars(seen)))


if __name__ == "__main__":
    main()
