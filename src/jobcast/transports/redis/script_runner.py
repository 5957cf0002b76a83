"""Runs scripts in one round trip to each server, with the blocking client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError

from jobcast.transports.redis.feed_scripts import ScriptCall
from jobcast.transports.redis.nodes import group_by_node
from jobcast.transports.redis.servers import REDIS_ERRORS, Client


def run_scripts(client: Client, calls: Sequence[ScriptCall]) -> list[Any]:
    """Return the answer of each call, or its exception.

    Raises:
        RedisError, RedisClusterException, OSError: no node is reachable, or none has a key.
    """
    answers: list[Any] = [None] * len(calls)
    by_node = group_by_node(client, range(len(calls)), lambda place: calls[place].keys[0])
    for node, places in by_node.values():
        try:
            found = _run_on(node, [calls[place] for place in places])
        except REDIS_ERRORS as exc:
            found = [exc] * len(places)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def read_fields(client: Client, keys: Sequence[str], fields: Sequence[str]) -> list[Any]:
    """Return the values of some fields of each hash, or the exception.

    Raises:
        RedisError, RedisClusterException, OSError: no node is reachable, or none has a key.
    """
    answers: list[Any] = [None] * len(keys)
    by_node = group_by_node(client, range(len(keys)), lambda place: keys[place])
    for node, places in by_node.values():
        pipeline = node.pipeline(transaction=False)
        for place in places:
            pipeline.hmget(keys[place], [*fields])
        try:
            found: list[Any] = pipeline.execute(raise_on_error=False)
        except REDIS_ERRORS as exc:
            found = [exc] * len(places)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def _run_on(node: redis.Redis, calls: Sequence[ScriptCall]) -> list[Any]:
    answers = _pipeline(node, calls)
    missing = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if missing:
        for text in {calls[i].script.text for i in missing}:
            node.script_load(text)
        repeated = _pipeline(node, [calls[i] for i in missing])
        for i, answer in zip(missing, repeated, strict=True):
            answers[i] = answer
    return answers


def _pipeline(node: redis.Redis, calls: Sequence[ScriptCall]) -> list[Any]:
    pipeline = node.pipeline(transaction=False)
    for script, keys, argv in calls:
        pipeline.evalsha(script.sha, len(keys), *keys, *argv)
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    return answers
