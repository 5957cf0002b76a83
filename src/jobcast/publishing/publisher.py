"""The publisher of a process, which takes events without blocking tasks and pipelines them."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, Protocol

from msgspec import Struct

from jobcast.aio import Backoff
from jobcast.bell import Bell
from jobcast.errors import PublishFailed
from jobcast.events import NO_INFO, TERMINAL, JobEvent, JobInfo, JobProgress
from jobcast.liveness.renewer import LeaseRenewer, Sidecar
from jobcast.publishing.buffer import Buffer, encode
from jobcast.publishing.guard import Guard
from jobcast.publishing.held import HeldJobs
from jobcast.transports import Origin, Outgoing, TransportPublisher
from jobcast.transports.base import Predecessor, Required
from jobcast.transports.cancellation import (
    CancellationListener,
    OnCancellation,
    SupportsCancellationNotices,
)
from jobcast.transports.leases import DEFAULT_LEASE, Lease

LINGER: Final = 0.025  # seconds to collect further events and to replace progress before sending
BATCH: Final = 200  # events per pipeline
WINDOW: Final = 5000  # events to group by job, while the transport is up
FIRST_DELAY: Final = 0.1  # seconds before the first retry after a failure
LONGEST_DELAY: Final = 5.0  # seconds between two retries at most
FLUSH_TIMEOUT: Final = 2.0  # seconds that the end of a task waits for the transport at most
CLOSE_TIMEOUT: Final = 3.0  # seconds that the end of a process waits at most
HELD_DELAY: Final = 0.1  # seconds between two retries of held events
MAX_FAULTS: Final = 100  # unreadable progress values to keep until the thread logs them
MAX_LISTED: Final = 100  # jobs to list in a log line

logger = logging.getLogger(__name__)


class Reporter(Protocol):
    """A job as the publisher sees it. The task overwrites ``slot`` with its latest progress."""

    job_id: str
    origin: Origin
    requires: Required
    dirty: bool
    slot: Any

    def take_progress(self, slot: Any) -> JobProgress | None:
        """Return the progress in ``slot``, or None if it is not newer than the last one taken.

        The publisher calls this under its lock, where no foreign code may run. The values in the
        slot therefore have plain types.
        """

    def drop_progress(self, slot: Any) -> None:
        """Skip a progress whose values cannot be read."""


class Poll(Protocol):
    """A periodic task of the publisher's thread."""

    @property
    def due_in(self) -> float | None:
        """Seconds until the next call; None if there is none to make."""

    def read(self) -> bool:
        """Return whether the poll may have missed a request to cancel a job."""


class Submitted(Struct, eq=False):
    """An event in the inbox of the buffer, with the progress that precedes it."""

    job: Reporter
    event: JobEvent
    origin: Origin
    requires: Required
    slot: Any
    publisher_id: str
    info: JobInfo = NO_INFO
    ticket: int = 0  # assigned under the lock

    @property
    def reference(self) -> str:
        """Return the reference for :attr:`Origin.after <jobcast.transports.Origin.after>`.

        It is empty until a thread that holds the lock has assigned the ticket. A flush waits for
        the ticket.
        """
        if not self.ticket:
            return ""
        at = int(self.event.timestamp.timestamp())
        return str(Predecessor(self.publisher_id, self.ticket, at))


class Waiter(Struct, eq=False):
    """A thread that waits until all earlier events are stored."""

    waits: bool  # False: the thread does not block, because the transport does not answer
    bell: Bell
    ticket: int | None = None  # assigned under the lock


class Publisher:
    """The publisher of a process. It is created lazily, and again after a fork.

    Any thread may call it, and so may a signal handler or a finalizer that interrupts such a call.
    Tasks submit their events without waiting for a lock, and no foreign code runs under a lock.
    While the transport is down, a bounded buffer keeps the events.
    """

    def __init__(
        self,
        transport: TransportPublisher,
        *,
        shown_url: str = "",
        buffer: Buffer | None = None,
        lease: float = DEFAULT_LEASE,
        sidecar: Sidecar | None = None,
    ) -> None:
        self._transport = transport
        self.leases = LeaseRenewer(transport, lease, sidecar)
        self.poll: Poll | None = None
        self._shown_url = shown_url
        self._buffer = Buffer() if buffer is None else buffer
        self._lock = Guard()
        # Stays short: each thread that adds an item moves all items to the buffer, unless another
        # thread is doing so.
        self._inbox: deque[Submitted | Waiter] = deque()
        self._dirty: deque[Reporter] = deque()  # jobs with a new progress
        self._faults: deque[tuple[str, Exception]] = deque(maxlen=MAX_FAULTS)
        self._work = Bell()
        self._hurry = Bell()
        self._waiters: list[Waiter] = []
        self._sent_ticket = 0  # all events up to this ticket are stored or held
        # Jobs that wait for other publishers. Their later events are in the buffer.
        self._held = HeldJobs()
        self._prepared: deque[Outgoing] = deque()  # taken from the buffer, not in a pipeline yet
        self._unsent: Sequence[Outgoing] = ()  # the current pipeline
        self._down_since: float | None = None
        self._late = False  # a flush has timed out since the transport's last answer
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jobcast-publisher", daemon=True)
        self._thread.start()

    def mark(self, job: Reporter) -> None:
        """Note that a job has a new progress. One call is enough for many progress updates."""
        job.dirty = True
        self._dirty.append(job)
        self._work.set()

    def add(self, job: Reporter, event: JobEvent, info: JobInfo = NO_INFO) -> Submitted:
        """Submit an event, preceded by the job's latest progress.

        Args:
            job: the job.
            event: the event.
            info: the description of the job, for an ending and for a retry.
        """
        publisher_id = self._transport.publisher_id
        submitted = Submitted(job, event, job.origin, job.requires, job.slot, publisher_id, info)
        self._submit(submitted)
        self._work.set()
        return submitted

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> bool:
        """Wait until all submitted events are stored.

        The call does not wait while the transport is down, or after an earlier flush has timed
        out and the transport has not answered since. It also does not wait for events that are
        held until another process has published earlier ones.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether all events are stored. If not, they are sent later.
        """
        if self._lock.held_here or threading.current_thread() is self._thread:
            # This is a signal handler or a finalizer that has interrupted the work to wait for.
            return False
        waiter = Waiter(not self._stuck, Bell())
        self._submit(waiter)
        self.hurry()
        if not (self._is_stored(waiter) or self._stuck or waiter.bell.wait(timeout)):
            self._late = True
        return self._is_stored(waiter) and not self._held

    def hurry(self) -> None:
        """Send all events now, without waiting for further ones."""
        self._hurry.set()
        self._work.set()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Send the remaining events and stop.

        Args:
            timeout: seconds to wait at most for the flush, and again for the thread to end.
        """
        self.flush(timeout)
        self._closing = True
        self._hurry.set()
        self._work.set()
        self._thread.join(timeout)
        self.leases.close()
        with self._lock:
            held = len(self._held.events)
            waiting = len(self._buffer) + len(self._prepared) + len(self._unsent)
            lost = held + waiting + self._buffer.lost
            ended = self._jobs_with_unsent_endings()
        if lost:
            logger.warning(
                "%d events of jobs were not sent to %s before the publisher was closed;"
                " they are lost", lost, self._shown_url,
            )  # fmt: skip
        if ended:
            logger.error(
                "could not report to %s how %d jobs ended; they are shown as lost after"
                " JOBCAST_LOST_AFTER: %s%s", self._shown_url, len(ended),
                ", ".join(ended[:MAX_LISTED]), ", ..." if len(ended) > MAX_LISTED else "",
            )  # fmt: skip
        self._transport.close()

    def _jobs_with_unsent_endings(self) -> list[str]:
        held = self._held.events
        outgoing = chain(held, self._unsent, self._prepared)
        ended = [event.job_id for event in outgoing if event.kind == TERMINAL]
        return [*dict.fromkeys([*ended, *self._buffer.ended_jobs()])]

    def detach(self) -> None:
        """Detach from the jobs in a forked process, where they use another publisher."""
        for job in self._dirty:
            job.dirty = False
        self.leases.detach()

    def hold(self, lease: Lease) -> None:
        """Keep the lease of a run whose events another process of this worker publishes."""
        self.leases.hold(lease)
        self._hurry.set()
        self._work.set()

    def release(self, lease: Lease) -> None:
        """Release the lease of a reservation."""
        self.leases.release(lease)
        self._hurry.set()
        self._work.set()

    @property
    def has_leases(self) -> bool:
        """Whether the transport has leases."""
        return self.leases.is_supported

    @property
    def learns_of_cancellations(self) -> bool:
        """Whether the transport's answers say which jobs are to be cancelled."""
        return isinstance(self._transport, SupportsCancellationNotices)

    def listen(self, on_cancellation: OnCancellation) -> CancellationListener | None:
        """Subscribe to the control channel, if the transport has one."""
        transport = self._transport
        if isinstance(transport, SupportsCancellationNotices):
            return transport.listen(on_cancellation)
        return None

    def _run(self) -> None:
        while not self._closing:
            if self._work.wait(self._due_in):
                self._hurry.wait(LINGER)
                self._work.clear()
                self._hurry.clear()
            try:
                self._look()
                self._drain()
                self.leases.renew_and_release()
            except Exception:
                # This thread publishes the events of all jobs of the process and renews their
                # leases, so it must not end.
                logger.exception(
                    "could not send the events of this process's jobs; retrying in %.1f s",
                    FIRST_DELAY,
                )
                self._hurry.clear()
                self._hurry.wait(FIRST_DELAY)
        self._finish()

    @property
    def _due_in(self) -> float | None:
        """Seconds until the next work; None if there is none."""
        held = HELD_DELAY if self._held else None
        return min((due for due in (self._chores_due_in, held) if due is not None), default=None)

    @property
    def _chores_due_in(self) -> float | None:
        """Seconds until the next renewal of leases or poll; None if there is none."""
        poll = None if self.poll is None else self.poll.due_in
        return min((due for due in (self.leases.due_in, poll) if due is not None), default=None)

    def _look(self) -> None:
        if self.poll is not None and self.poll.due_in is not None and self.poll.read():
            # The answer says which of the jobs are to be cancelled.
            self.leases.renew_soon()

    def _submit(self, item: Submitted | Waiter) -> None:
        """Pass an item to the buffer, without waiting for a thread that uses the buffer."""
        self._inbox.append(item)
        # A thread that holds the lock here checks the inbox again after releasing the lock.
        while self._inbox and self._lock.run_if_free(self._empty_inbox):
            pass

    def _is_stored(self, waiter: Waiter) -> bool:
        return waiter.ticket is not None and self._sent_ticket >= waiter.ticket

    @property
    def _stuck(self) -> bool:
        """Whether waiting for the transport is futile."""
        return self._late or self._down_since is not None

    @property
    def _gives_up(self) -> bool:
        return self._closing and self._down_since is not None

    def _drain(self) -> None:
        """Send all events submitted so far. Events submitted meanwhile wait for the next call."""
        self._retry_held()
        with self._lock:
            self._collect()
            last = self._buffer.last_ticket
        self._log_faults()
        while self._sent_ticket < last and not self._gives_up:
            self._unsent = self._unsent or self._next_batch()
            # A run needs its lease before its ``started`` event is stored: without a lease the
            # monitor cannot detect a lost worker.
            self.leases.renew_and_release()
            self._send_batch()

    def _finish(self) -> None:
        """Send the remaining events, without waiting for other publishers."""
        self._drain()
        while self._held and not self._gives_up:
            for job_id in self._held:
                self._give_up_waiting(job_id)
            self._drain()
        self.leases.renew_and_release()

    def _send_batch(self) -> None:
        """Try to send one pipeline."""
        problem = self._publish(self._unsent)
        if problem is not None and not problem.held:
            self._unsent = problem.unsent
            self._failed(problem)
            return
        self._unsent = ()
        with self._lock:
            if problem is not None:
                self._hold_events(problem.unsent)
            if not self._prepared:
                self._sent_ticket = self._buffer.first_ticket(self._held) - 1
        self._wake_waiters()
        self._succeeded()

    def _publish(self, batch: Sequence[Outgoing]) -> PublishFailed | None:
        """Pass a pipeline to the transport. Return the failure, or None on success."""
        problem: PublishFailed | None = None
        try:
            if batch:
                self._transport.publish(batch)
        except PublishFailed as exc:
            problem = exc
        except Exception as exc:
            # A transport may raise any exception; its events are kept and retried.
            logger.debug("could not publish to %s", self._shown_url, exc_info=True)
            problem = PublishFailed(str(exc), batch)
        if problem is None or problem.held:
            self._late = False
        unsent = () if problem is None else problem.unsent
        self.leases.end([outgoing for outgoing in batch if outgoing not in unsent])
        return problem

    def _next_batch(self) -> list[Outgoing]:
        if not self._prepared:
            self._prepare()
        count = min(BATCH, len(self._prepared))
        batch = [self._prepared.popleft() for _ in range(count)]
        self.leases.begin(batch)
        return batch

    def _prepare(self) -> None:
        """Take events from the buffer and group them by job.

        Transports store consecutive events of a job with one call, and send them as one message.
        """
        with self._lock:
            self._empty_inbox()
            # During an outage events stay in the buffer, which is bounded and replaces progress.
            count = WINDOW if self._down_since is None else BATCH
            entries = self._buffer.take(count, skip=self._held)
        of_job: defaultdict[str, list[Outgoing]] = defaultdict(list)
        for outgoing in encode(entries):
            of_job[outgoing.job_id].append(outgoing)
        self._prepared.extend(chain.from_iterable(of_job.values()))

    def _collect(self) -> None:
        """Move the submitted events and the progress of all jobs to the buffer.

        Called under the lock.
        """
        self._empty_inbox()
        self._collect_progress()

    def _empty_inbox(self) -> None:
        """Move the submitted events to the buffer. Called under the lock."""
        while self._inbox:
            # The item leaves the inbox last, because a time limit may interrupt the task here.
            # The next holder of the lock then repeats the item with the same ticket.
            item = self._inbox[0]
            if isinstance(item, Submitted):
                self._take_progress(item.job, item.slot, item.origin)
                item.ticket = item.ticket or self._buffer.last_ticket + 1
                self._buffer.add(
                    item.event, item.origin, item.requires, info=item.info, ticket=item.ticket
                )
            elif item.ticket is None:
                self._collect_progress()
                item.ticket = self._buffer.last_ticket
                if item.waits:
                    self._waiters.append(item)
            self._inbox.popleft()

    def _collect_progress(self) -> None:
        while self._dirty:
            # The job leaves the queue last, as an item leaves the inbox in _empty_inbox.
            job = self._dirty[0]
            job.dirty = False
            self._take_progress(job, job.slot, job.origin)
            self._dirty.popleft()

    def _take_progress(self, job: Reporter, slot: Any, origin: Origin) -> None:
        try:
            progress = job.take_progress(slot)
        except Exception as exc:
            if threading.current_thread() is not self._thread:
                raise  # a signal handler may have raised it to end the task
            job.drop_progress(slot)
            self._faults.append((job.job_id, exc))  # nothing is logged under the lock
            return
        if progress is not None:
            self._buffer.add(progress, origin)

    def _log_faults(self) -> None:
        while self._faults:
            job_id, exc = self._faults.popleft()
            logger.warning(
                "job %s: could not read a progress update; it is dropped", job_id, exc_info=exc
            )

    def _wake_waiters(self) -> None:
        """Wake the threads whose events are stored, or that wait in vain."""
        with self._lock:
            self._empty_inbox()
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not (self._is_stored(waiter) or self._stuck):
                    self._waiters.append(waiter)
        for waiter in waiters:
            if self._is_stored(waiter) or self._stuck:
                waiter.bell.set()

    def _hold_events(self, events: Sequence[Outgoing]) -> None:
        """Hold events until the process that ran the previous attempt has published its events.

        Hold later events of the same jobs, too. Other jobs are not affected.
        """
        self._held.hold(events)
        waits = self._held.hold_if_waiting
        self._prepared = deque(outgoing for outgoing in self._prepared if not waits(outgoing))

    def _retry_held(self) -> None:
        """Retry the first held event of each job, and release the jobs that need not wait."""
        if not self._held or self._gives_up:
            return
        problem = self._publish(self._held.first_events)
        if problem is not None and not problem.held:
            self._failed(problem)
            return
        waiting = () if problem is None else {outgoing.job_id for outgoing in problem.unsent}
        for job_id in self._held:
            if job_id not in waiting:
                self._release_held(job_id, stored=1)
            elif self._held.has_timed_out(job_id):
                self._give_up_waiting(job_id)
        self._succeeded()

    def _give_up_waiting(self, job_id: str) -> None:
        self._held.give_up(job_id)
        self._release_held(job_id, stored=0)

    def _release_held(self, job_id: str, stored: int) -> None:
        """Queue the held events of a job before newer ones; skip the first ``stored`` events."""
        with self._lock:
            events = self._held.release(job_id)
            # All events of the job in the buffer are newer.
            self._sent_ticket = min(self._sent_ticket, events[0].number - 1)
            self._prepared.extendleft(reversed([*events][stored:]))

    def _failed(self, exc: Exception) -> None:
        self._held.pause()
        self._backoff.failed()
        if self._backoff.failures == 1:
            logger.warning(
                "jobcast cannot reach %s (%s): tasks continue, and up to %d events are buffered and"
                " sent when it can be reached again", self._shown_url, exc,
                self._buffer.max_events,
            )  # fmt: skip
            self._down_since = time.monotonic()
        self._wake_waiters()
        self._wait_before_retry(self._backoff.delay())

    def _wait_before_retry(self, seconds: float) -> None:
        """Wait, and renew leases meanwhile: a server that refuses events may accept leases."""
        self._hurry.clear()
        while seconds > 0:
            due = self._chores_due_in
            some = seconds if due is None else min(seconds, due)
            if self._hurry.wait(some):
                return
            seconds -= some
            self._look()
            self.leases.renew_and_release()

    def _succeeded(self) -> None:
        if self._down_since is not None:
            logger.warning(
                "jobcast reaches %s again, after %.1f s",
                self._shown_url, time.monotonic() - self._down_since,
            )  # fmt: skip
            with self._lock:
                lost, self._buffer.lost = self._buffer.lost, 0
                self.leases.abandon(self._buffer.take_lost_endings())
            if lost:
                logger.error(
                    "%d statuses and final events of jobs were lost during the outage: the buffer"
                    " was full", lost,
                )  # fmt: skip
            self._down_since = None
            self._backoff.reset()
