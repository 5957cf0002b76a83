"""Run an attack in a separate process, so that it takes no CPU time from the innocent client.

python -m bench.attackers NAME --url http://127.0.0.1:8000 --connections 10 --seconds 8

The environment variables ATTACK_TOKEN and ATTACK_JOB hold the token and the id of a job with a long
history. The program prints its counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource

from tests.support.attacks.attack import Attack, Seen, Target
from tests.support.attacks.catalogue import BY_NAME


async def run(attack: Attack, target: Target, connections: int, seconds: float) -> Seen:
    """Run an attack for a number of seconds, and return its counts."""
    seen = Seen()
    tasks = [asyncio.create_task(attack.persist(target, seen)) for _ in range(connections)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        await task  # raises the error of an attacker
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
    seen = asyncio.run(run(BY_NAME[options.name], target, options.connections, options.seconds))
    print(json.dumps(vars(seen)))


if __name__ == "__main__":
    main()
