"""Writes the feeds of the jobs that a process publishes, in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

from jobcast.aio import Backoff
from jobcast.bell import Bell
from jobcast.events import TERMINAL
from jobcast.transports.base import Outgoing, Retention
from jobcast.transports.dirty_jobs import DirtyJobs, changes_of
from jobcast.transports.leases import Lease
from jobcast.transports.redis.feed_scripts import (
    SUMMARY_FIELDS,
    FeedCalls,
    FeedWrite,
    RecordSummary,
)
from jobcast.transports.redis.leases import release_leases
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.nodes import reload_slots, subscribed
from jobcast.transports.redis.refusals import describe_error, is_caused_by_the_events
from jobcast.transports.redis.script_runner import read_fields, run_scripts
from jobcast.transports.redis.servers import REDIS_ERRORS, Client, Servers

LINGER: Final = 0.05  # seconds to collect further changes before writing
AT_ONCE: Final = 500  # jobs per round trip; those of one feed share a call
MAX_BATCHES: Final = 1000  # published batches that the thread has not looked at
MAX_REMEMBERED: Final = 10_000  # jobs
MAX_RELEASED: Final = 10_000  # leases to release; without a release they expire
FIRST_DELAY: Final = 1.0  # seconds after a failure
LONGEST_DELAY: Final = 30.0  # seconds between two attempts at most
CLOSE_TIMEOUT: Final = 2.0  # seconds that the end of a process waits at most

T = TypeVar("T")

logger = logging.getLogger(__name__)


class FeedWriter:
    """Reads the summaries of published jobs, and writes them to their feeds.

    The publisher only notes which jobs have changed, without a lock. A slow or broken feed thereby
    delays no event. Changes that are not written, as after a crash, are repaired when a feed is
    read. The writer also releases leases, after the feeds of their jobs are written. After a crash
    in between the leases expire, and the monitor of leases repairs the feeds without a reader.
    """

    def __init__(self, servers: Servers, names: Names, retention: Retention) -> None:
        self._servers = servers
        self._names = names
        self._calls = FeedCalls(names, retention, servers.sharded)
        self._is_enabled = retention.feed_size > 0
        self._reset()

    def _reset(self) -> None:
        """Create the state of this process. A fork has no threads, and no connections."""
        self._pid = os.getpid()
        self._marks: deque[dict[str, bool]] = deque(maxlen=MAX_BATCHES)
        self._released: deque[Lease] = deque(maxlen=MAX_RELEASED)
        self._waiting: list[Lease] = []  # released; the feeds of their jobs are not written
        self._work = Bell()
        self._hurry = Bell()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._client: Client | None = None
        self._turn = threading.Lock()
        self._dirty = DirtyJobs()
        self._handled: OrderedDict[str, bytes] = OrderedDict()  # former feeds, by job
        self._running: OrderedDict[str, RecordSummary] = OrderedDict()  # as last written, by job
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)

    def mark(self, batch: Sequence[Outgoing]) -> None:
        """Note that events of these jobs were stored. Any thread may call this; it never blocks."""
        # After an end, this process may end soon.
        self._add(changes_of(batch), hurry=any(event.kind == TERMINAL for event in batch))

    def mark_job(self, job_id: str) -> None:
        """Note that the summary of a job has changed."""
        self._add({job_id: True}, hurry=True)

    def _add(self, marks: dict[str, bool], *, hurry: bool) -> None:
        if not marks or not self._is_enabled:
            return
        if self._pid != os.getpid():
            self._reset()
        self._marks.append(marks)
        if self._thread is None:
            self._start()
        if hurry:
            self._hurry.set()
        self._work.set()

    def release(self, leases: Sequence[Lease]) -> bool:
        """Release leases after the feeds of their jobs are written.

        Returns:
            False if this process writes no feeds; the caller has to release the leases.
        """
        if self._thread is None or self._pid != os.getpid():
            return False
        self._released.extend(leases)
        self._work.set()
        return True

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write all changes, if the servers answer, and stop.

        Args:
            timeout: seconds to wait at most.
        """
        self.stop()
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            thread.join(timeout)

    def stop(self) -> None:
        """Write all changes and stop, without waiting for it."""
        self._is_closing = True
        self._hurry.set()
        self._work.set()

    def _start(self) -> None:
        self._is_closing = False
        # Set first: a signal handler may interrupt the start, and mark further jobs.
        self._thread = threading.Thread(target=self._run, name="jobcast-feeds", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:  # there are too many threads, or the interpreter exits
            self._thread = None
            logger.debug("could not start the thread that writes feeds: %s", exc)

    def _run(self) -> None:
        with self._turn:  # two threads may have published their first events at the same moment
            try:
                while not self._is_closing:
                    self._work.wait(self._dirty.due_in)
                    self._hurry.wait(LINGER)
                    self._write_due()
                self._collect()
                self._write(self._dirty.take_all())
                self._release()
            finally:
                self._disconnect()

    def _write_due(self) -> None:
        try:
            self._collect()
            due = self._dirty.take()
            progress = {job_id for job_id in due if not due[job_id] and job_id in self._running}
            self._write([job_id for job_id in due if job_id not in progress])
            self._publish_progress([*progress])
            self._release()
        except Exception:
            # The thread has to survive any error: no other thread writes the feeds.
            logger.exception("could not write the feeds of this process's jobs")

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _collect(self) -> None:
        # The leases first: a job is marked before its lease is released.
        for _ in range(len(self._released)):
            self._waiting.append(self._released.popleft())
        while self._marks:
            self._dirty.mark(self._marks.popleft())

    def _release(self) -> None:
        """Release the leases of the jobs whose feeds are written."""
        written = [lease for lease in self._waiting if lease.job_id not in self._dirty]
        if not written:
            return
        self._waiting = [lease for lease in self._waiting if lease.job_id in self._dirty]
        try:
            release_leases(self._connected(), self._names, written)
        except REDIS_ERRORS as exc:
            logger.debug("could not release %d leases; they expire: %s", len(written), exc)

    def _publish_progress(self, jobs: Sequence[str]) -> None:
        """Send the progress of jobs to the followers of their feeds.

        The feeds keep the former summaries. A client that follows a feed later reads the progress
        from the records.
        """
        channels = {job_id: self._channels_of(job_id) for job_id in jobs}
        followed = self._followed({*chain.from_iterable(channels.values())})
        wanted = [job_id for job_id in jobs if not followed.isdisjoint(channels[job_id])]
        changed: list[str] = []
        for some in self._chunks(wanted):
            with self._postponing(some):
                changed += self._publish_some(some, followed)
        self._write(changed)

    def _publish_some(self, jobs: Sequence[str], followed: Set[str]) -> list[str]:
        """Publish the progress of some jobs.

        Returns:
            The jobs that have to be written: a feed does not have them, or more than their progress
            has changed.
        """
        keys = [self._names.of(job_id).state for job_id in jobs]
        answers = read_fields(self._connected(), keys, SUMMARY_FIELDS)
        found = {
            job_id: self._updated_summary(job_id, answer)
            for job_id, answer in zip(jobs, answers, strict=True)
        }
        records = [record for record in found.values() if record is not None]
        problems, missing = self._run_writes(self._calls.publish_progress(records, followed))
        self._postpone_failed(problems)
        return [job_id for job_id, record in found.items() if record is None or job_id in missing]

    def _updated_summary(self, job_id: str, fields: Any) -> RecordSummary | None:
        """Return the summary of a running job; None if more than the progress has changed."""
        known = self._running.get(job_id)
        if known is None or isinstance(fields, Exception):
            return None
        return _parse(job_id, partial(known.after, fields))

    def _channels_of(self, job_id: str) -> list[str]:
        """Return the channels of the feeds of a running job."""
        record = self._running.get(job_id)
        feeds = () if record is None else record.feeds
        return [self._names.feed_of(feed, job_id).channel for feed in feeds]

    def _followed(self, channels: Set[str]) -> Set[str]:
        """Return the channels with subscribers; all of them if the servers do not answer."""
        if not channels:
            return channels
        try:
            return subscribed(self._connected(), channels, sharded=self._servers.sharded)
        except REDIS_ERRORS as exc:
            logger.debug("could not look up the followers of feeds: %s", exc)
            return channels

    def _write(self, jobs: Sequence[str]) -> None:
        """Write the summaries of some jobs; those that could not be written are dirty again."""
        for some in self._chunks(jobs):
            with self._postponing(some):
                self._write_some(some)

    def _chunks(self, jobs: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yield some jobs at a time, and collect newly published changes in between."""
        for start in range(0, len(jobs), AT_ONCE):
            yield jobs[start : start + AT_ONCE]
            self._collect()

    @contextmanager
    def _postponing(self, jobs: Sequence[str]) -> Iterator[None]:
        """Write the summaries of some jobs later if the servers cannot be reached."""
        try:
            yield
        except REDIS_ERRORS as exc:
            self._postpone_failed(dict.fromkeys(jobs, exc))

    def _write_some(self, jobs: Sequence[str]) -> None:
        client = self._connected()
        calls = [self._calls.summary(job_id, self._handled.pop(job_id, b"")) for job_id in jobs]
        problems: dict[str, Exception] = {}
        records: list[RecordSummary] = []
        for job_id, answer in zip(jobs, run_scripts(client, calls), strict=True):
            if isinstance(answer, Exception):
                problems[job_id] = answer
            elif (
                record := _parse(job_id, partial(RecordSummary.parse, job_id, answer))
            ) is not None:
                records.append(record)
        changes = chain.from_iterable(record.changes for record in records)
        problems |= self._run_writes(self._calls.write_all(changes))[0]
        for record in records:
            if record.job.job_id not in problems:
                self._written(record)
        self._postpone_failed(problems)

    def _run_writes(self, writes: Sequence[FeedWrite]) -> tuple[dict[str, Exception], set[str]]:
        """Change feeds. Return the exceptions by job, and the jobs that the feeds do not have."""
        answers = run_scripts(self._connected(), [write.call for write in writes])
        problems: dict[str, Exception] = {}
        missing: set[str] = set()
        for write, answer in zip(writes, answers, strict=True):
            if isinstance(answer, Exception):
                problems |= dict.fromkeys(write.jobs, answer)
            elif isinstance(answer, list):
                missing.update(job_id.decode() for job_id in answer)
        return problems, missing

    def _written(self, record: RecordSummary) -> None:
        """Remember a record whose summary is in all feeds of its job."""
        job_id = record.job.job_id
        _remember(self._handled, job_id, record.former)
        _remember(self._running, job_id, None if record.job.has_ended else record)

    def _postpone_failed(self, problems: Mapping[str, Exception]) -> None:
        """Write the summaries of some jobs again later, unless another attempt would fail too."""
        lasting = [exc for exc in problems.values() if not is_caused_by_the_events(exc)]
        if not problems:
            self._backoff.reset()
            return
        self._backoff.failed()
        delay = self._backoff.delay()
        for job_id, exc in problems.items():
            if is_caused_by_the_events(exc):
                logger.error("job %s: Redis refuses its feeds (%s)", job_id, describe_error(exc))
            else:
                self._dirty.postpone(job_id, delay)
        if lasting and self._backoff.failures == 1:
            logger.warning(
                "could not write the feeds of %d jobs (%s): retrying; JOBCAST_FEED_SIZE=0 turns"
                " feeds off", len(lasting), describe_error(lasting[0]),
            )  # fmt: skip
        if self._client is not None:
            reload_slots(self._client)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._servers.client()
        return self._client


def _remember(values: OrderedDict[str, T], job_id: str, value: T | None) -> None:
    """Set the value of a job, or remove it if it is empty."""
    values.pop(job_id, None)
    if value:
        values[job_id] = value
    if len(values) > MAX_REMEMBERED:
        values.popitem(last=False)


def _parse(job_id: str, parse: Callable[[], RecordSummary | None]) -> RecordSummary | None:
    """Return the summary of a record; None if there is no record, or an invalid one."""
    try:
        return parse()
    except ValueError as exc:
        logger.warning("job %s: no feed has it, because its record is invalid: %s", job_id, exc)
        return None
