"""The publisher: takes events from tasks without making them wait, and sends them in pipelines."""

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
from jobcast.errors import PublishFailed
from jobcast.events import TERMINAL, JobEvent, JobProgress
from jobcast.liveness.renewer import LeaseRenewer, Sidecar
from jobcast.publishing.bell import Bell
from jobcast.publishing.buffer import Buffer, encode
from jobcast.publishing.guard import Guard
from jobcast.publishing.held import HeldJobs
from jobcast.transports import Origin, Outgoing, TransportPublisher
from jobcast.transports.base import Predecessor, Required
from jobcast.transports.leases import DEFAULT_LEASE, Lease

LINGER: Final = 0.025  # seconds that an event waits for others, and progress to be replaced
BATCH: Final = 200  # events a pipeline
WINDOW: Final = 5000  # events that are put in the order of their jobs, while all goes well
FIRST_DELAY: Final = 0.1  # seconds before the first try after a failure
LONGEST_DELAY: Final = 5.0  # seconds between two tries
FLUSH_TIMEOUT: Final = 2.0  # seconds that the end of a task may wait for the transport
CLOSE_TIMEOUT: Final = 3.0  # seconds that the end of a process may
HELD_DELAY: Final = 0.1  # seconds between two looks whether the events before have come
MAX_FAULTS: Final = 100  # progress values that could not be taken, until the thread logs them
NAMED: Final = 100  # jobs that are named in the log

logger = logging.getLogger(__name__)


class Reporter(Protocol):
    """What the publisher asks of a job: its progress, a slot that the task overwrites."""

    job_id: str
    origin: Origin
    requires: Required
    dirty: bool
    slot: Any

    def take_progress(self, slot: Any) -> JobProgress | None:
        """The progress that ``slot`` held, if it is newer than what was taken before.

        It runs under the publisher's lock: every value in the slot is a plain one.
        """

    def drop_progress(self, slot: Any) -> None:
        """Skip a progress whose values cannot be read."""


class Submitted(Struct, eq=False):
    """An event on its way to the buffer, with the progress that precedes it."""

    job: Reporter
    event: JobEvent
    origin: Origin
    requires: Required
    slot: Any
    publisher_id: str
    ticket: int = 0  # given under the lock

    @property
    def reference(self) -> str:
        """Name the event as :attr:`Origin.after <jobcast.transports.Origin.after>` does.

        Empty while another thread is about to give the ticket; a flush waits for that.
        """
        if not self.ticket:
            return ""
        at = int(self.event.timestamp.timestamp())
        return str(Predecessor(self.publisher_id, self.ticket, at))


class Waiter(Struct, eq=False):
    """A thread that waits until everything before it is stored."""

    waits: bool
    bell: Bell
    ticket: int | None = None  # given under the lock


class Publisher:
    """One for each process, started lazily, on the process's own side of a fork.

    Any thread may call it, and so may a signal handler or a finalizer that interrupts such a call:
    a task hands its events over without waiting for a lock, and no foreign code runs under one.
    While the transport is down the events wait in a bounded buffer.
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
        self._shown_url = shown_url
        self._buffer = Buffer() if buffer is None else buffer
        self._lock = Guard()
        # On the way to the buffer. It stays short: each thread that adds an item empties it, unless
        # another thread is doing so.
        self._inbox: deque[Submitted | Waiter] = deque()
        self._dirty: deque[Reporter] = deque()  # jobs whose progress was not looked at
        self._faults: deque[tuple[str, Exception]] = deque(maxlen=MAX_FAULTS)
        self._work = Bell()
        self._hurry = Bell()
        self._waiters: list[Waiter] = []
        self._sent_ticket = 0  # everything up to here is stored, or held
        # Jobs that wait for other publishers. All that came later of them is in the buffer.
        self._held = HeldJobs()
        self._prepared: deque[Outgoing] = deque()  # has left the buffer, and waits its turn
        self._unsent: Sequence[Outgoing] = ()  # what is being sent
        self._down_since: float | None = None
        self._late = False  # somebody has waited in vain since the last answer
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jobcast-publisher", daemon=True)
        self._thread.start()

    def mark(self, job: Reporter) -> None:
        """The job has a new progress. Cheap, and called once for many of them."""
        job.dirty = True
        self._dirty.append(job)
        self._work.set()

    def add(self, job: Reporter, event: JobEvent) -> Submitted:
        """Send an event, after the progress that was said before it."""
        publisher_id = self._transport.publisher_id
        submitted = Submitted(job, event, job.origin, job.requires, job.slot, publisher_id)
        self._hand_over(submitted)
        self._work.set()
        return submitted

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> bool:
        """Wait until all that was said is stored.

        Args:
            timeout: seconds to wait at most; there is no wait while the transport is down, or does
                not answer whoever has waited before, and none for jobs of which another process
                has to speak first.

        Returns:
            Whether it is; if not, it is sent later, when that is possible.
        """
        if self._lock.held_here or threading.current_thread() is self._thread:
            # A signal handler or a finalizer has interrupted the very work that it would wait for.
            return False
        waiter = Waiter(not self._stuck, Bell())
        self._hand_over(waiter)
        self.hurry()
        if not (self._is_stored(waiter) or self._stuck or waiter.bell.wait(timeout)):
            self._late = True
        return self._is_stored(waiter) and not self._held

    def hurry(self) -> None:
        """Send what there is, without waiting for more."""
        self._hurry.set()
        self._work.set()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Send what is left, within ``timeout`` seconds, and stop."""
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
            logger.warning("%d events of jobs were not sent to %s", lost, self._shown_url)
        if ended:
            logger.error(
                "the process ends before it could send to %s how %d jobs ended, which are shown as"
                " lost after JOBCAST_LOST_AFTER: %s%s", self._shown_url, len(ended),
                ", ".join(ended[:NAMED]), ", ..." if len(ended) > NAMED else "",
            )  # fmt: skip
        self._transport.close()

    def _jobs_with_unsent_endings(self) -> list[str]:
        held = self._held.events
        outgoing = chain(held, self._unsent, self._prepared)
        ended = [event.job_id for event in outgoing if event.kind == TERMINAL]
        return [*dict.fromkeys([*ended, *self._buffer.ended_jobs()])]

    def leave(self) -> None:
        """Let go of the jobs, in a process that was forked: they speak through another one."""
        for job in self._dirty:
            job.dirty = False
        self.leases.leave()

    def hold(self, lease: Lease) -> None:
        """Say that a run is alive, which another process of this worker will speak of."""
        self.leases.hold(lease)
        self._hurry.set()
        self._work.set()

    def _run(self) -> None:
        while not self._closing:
            if self._work.wait(self._due_in):
                self._hurry.wait(LINGER)
                self._work.clear()
                self._hurry.clear()
            try:
                self._drain()
                self.leases.tend()
            except Exception:
                # All jobs of the process speak through this thread, and live by its leases.
                logger.exception("what jobs said could not be sent; it is tried again")
                self._hurry.clear()
                self._hurry.wait(FIRST_DELAY)
        self._finish()

    @property
    def _due_in(self) -> float | None:
        """Seconds until there is something to do; None if there is nothing."""
        due = self.leases.due_in
        if self._held:
            return HELD_DELAY if due is None else min(due, HELD_DELAY)
        return due

    def _hand_over(self, item: Submitted | Waiter) -> None:
        """Pass an item to the buffer, without waiting for a thread that uses the buffer."""
        self._inbox.append(item)
        # Who has the lock for this purpose looks again after releasing it.
        while self._inbox and self._lock.run_if_free(self._take_in):
            pass

    def _is_stored(self, waiter: Waiter) -> bool:
        return waiter.ticket is not None and self._sent_ticket >= waiter.ticket

    @property
    def _stuck(self) -> bool:
        """Whether there is no use in waiting."""
        return self._late or self._down_since is not None

    @property
    def _gives_up(self) -> bool:
        return self._closing and self._down_since is not None

    def _drain(self) -> None:
        """Send what there is now. What is said meanwhile lingers until the next time."""
        self._look_at_held()
        with self._lock:
            self._collect()
            last = self._buffer.last_ticket
        self._log_faults()
        while self._sent_ticket < last and not self._gives_up:
            self._unsent = self._unsent or self._next_batch()
            # Before anybody knows that a run has started: it could not be missed until then.
            self.leases.tend()
            self._send_batch()

    def _finish(self) -> None:
        """Send what is left, without waiting for anybody."""
        self._drain()
        while self._held and not self._gives_up:
            for job_id in self._held:
                self._go_on_without(job_id)
            self._drain()
        self.leases.tend()

    def _send_batch(self) -> None:
        """Send one pipeline, or try to."""
        problem = self._publish(self._unsent)
        if problem is not None and not problem.held:
            self._unsent = problem.unsent
            self._failed(problem)
            return
        self._unsent = ()
        with self._lock:
            if problem is not None:
                self._set_aside(problem.unsent)
            if not self._prepared:
                self._sent_ticket = self._buffer.first_ticket(self._held) - 1
        self._wake_waiters()
        self._succeeded()

    def _publish(self, batch: Sequence[Outgoing]) -> PublishFailed | None:
        """Hand a pipeline to the transport. Returns what is wrong, if something is."""
        problem: PublishFailed | None = None
        try:
            if batch:
                self._transport.publish(batch)
        except PublishFailed as exc:
            problem = exc
        except Exception as exc:
            # Whatever is wrong with a transport, what it was given is kept and tried again.
            logger.debug("publishing to %s", self._shown_url, exc_info=True)
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
        """Take what waits, that of each job together: it takes one call, and one message."""
        with self._lock:
            self._take_in()
            # During an outage the buffer keeps it, which is bounded and has nothing stale in it.
            count = WINDOW if self._down_since is None else BATCH
            entries = self._buffer.take(count, but=self._held)
        of_job: defaultdict[str, list[Outgoing]] = defaultdict(list)
        for outgoing in encode(entries):
            of_job[outgoing.job_id].append(outgoing)
        self._prepared.extend(chain.from_iterable(of_job.values()))

    def _collect(self) -> None:
        """Take what was handed over, and the progress of every job. Called under the lock."""
        self._take_in()
        self._look_at_progress()

    def _take_in(self) -> None:
        """Move what was handed over to the buffer. Called under the lock."""
        while self._inbox:
            # The item leaves the inbox last: a time limit may interrupt a task here. The next
            # holder of the lock then repeats the item, with the same ticket.
            item = self._inbox[0]
            if isinstance(item, Submitted):
                self._take_progress(item.job, item.slot, item.origin)
                item.ticket = item.ticket or self._buffer.last_ticket + 1
                self._buffer.add(item.event, item.origin, item.requires, ticket=item.ticket)
            elif item.ticket is None:
                self._look_at_progress()
                item.ticket = self._buffer.last_ticket
                if item.waits:
                    self._waiters.append(item)
            self._inbox.popleft()

    def _look_at_progress(self) -> None:
        while self._dirty:
            # It leaves the queue last, for the same reason.
            job = self._dirty[0]
            job.dirty = False
            self._take_progress(job, job.slot, job.origin)
            self._dirty.popleft()

    def _take_progress(self, job: Reporter, slot: Any, origin: Origin) -> None:
        try:
            progress = job.take_progress(slot)
        except Exception as exc:
            if threading.current_thread() is not self._thread:
                raise  # a signal handler may have raised it, to end the task
            job.drop_progress(slot)
            self._faults.append((job.job_id, exc))  # nothing is logged under the lock
            return
        if progress is not None:
            self._buffer.add(progress, origin)

    def _log_faults(self) -> None:
        while self._faults:
            job_id, exc = self._faults.popleft()
            logger.warning("a progress of job %s is not shown", job_id, exc_info=exc)

    def _wake_waiters(self) -> None:
        """Wake the threads that need not wait any longer."""
        with self._lock:
            self._take_in()
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not (self._is_stored(waiter) or self._stuck):
                    self._waiters.append(waiter)
        for waiter in waiters:
            if self._is_stored(waiter) or self._stuck:
                waiter.bell.set()

    def _set_aside(self, events: Sequence[Outgoing]) -> None:
        """Let events wait for another process, which ran their job before this one, and with them
        whatever follows of the same job. Other jobs go on."""
        self._held.hold(events)
        waits = self._held.hold_if_waiting
        self._prepared = deque(outgoing for outgoing in self._prepared if not waits(outgoing))

    def _look_at_held(self) -> None:
        """Find out whether those have spoken that jobs are waiting for."""
        if not self._held or self._gives_up:
            return
        problem = self._publish(self._held.first_events)
        if problem is not None and not problem.held:
            self._failed(problem)
            return
        waiting = () if problem is None else {outgoing.job_id for outgoing in problem.unsent}
        for job_id in self._held:
            if job_id not in waiting:
                self._go_on(job_id, stored=1)
            elif self._held.has_timed_out(job_id):
                self._go_on_without(job_id)
        self._succeeded()

    def _go_on_without(self, job_id: str) -> None:
        self._held.give_up(job_id)
        self._go_on(job_id, stored=0)

    def _go_on(self, job_id: str, stored: int) -> None:
        """Send what has waited, but for what is ``stored`` of it, before anything newer."""
        with self._lock:
            events = self._held.release(job_id)
            # All that the buffer has of the job is newer.
            self._sent_ticket = min(self._sent_ticket, events[0].number - 1)
            self._prepared.extendleft(reversed([*events][stored:]))

    def _failed(self, exc: Exception) -> None:
        self._held.pause()
        self._backoff.failed()
        if self._backoff.failures == 1:
            logger.warning(
                "jobcast cannot reach %s (%s): tasks go on, and what they say is kept,"
                " %d events at most, until it is back", self._shown_url, exc,
                self._buffer.max_events,
            )  # fmt: skip
            self._down_since = time.monotonic()
        self._wake_waiters()
        self._wait_before_retry(self._backoff.delay())

    def _wait_before_retry(self, seconds: float) -> None:
        """Wait, and renew leases meanwhile: a server that refuses events may still take those."""
        self._hurry.clear()
        while seconds > 0:
            due = self.leases.due_in
            some = seconds if due is None else min(seconds, due)
            if self._hurry.wait(some):
                return
            seconds -= some
            self.leases.tend()

    def _succeeded(self) -> None:
        if self._down_since is not None:
            logger.warning(
                "jobcast reaches %s again, after %.1f s",
                self._shown_url, time.monotonic() - self._down_since,
            )  # fmt: skip
            with self._lock:
                lost, self._buffer.lost = self._buffer.lost, 0
            if lost:
                logger.error("%d statuses and endings of jobs were lost: too many to keep", lost)
            self._down_since = None
            self._backoff.reset()
