"""Records of jobs in memory, with the rules of ``publish.lua``, and a bounded store of records."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from msgspec import UNSET, structs

from jobcast.events import (
    INFO,
    LOG,
    NO_INFO,
    STATUS,
    TERMINAL,
    TERMINAL_STATES,
    Cursor,
    JobInfo,
    Kind,
    decode_info,
    packet_tail,
)
from jobcast.feeds import JobSummary
from jobcast.transports.base import (
    Message,
    Outgoing,
    Predecessor,
    Retention,
    Snapshot,
    can_resume,
)
from jobcast.transports.cancellation import (
    WAITING_STATES,
    CancelAnswer,
    Cancellation,
    with_timestamp,
)
from jobcast.transports.epochs import new_epoch
from jobcast.transports.history import History
from jobcast.transports.runs import Run, Runs, Standing
from jobcast.transports.summaries import summarize, timestamp_of

MAX_RECORDS: Final = 100_000
MAX_EVENTS: Final = 1_000_000  # in all records together
PUBLISHERS: Final = 32  # publishers of a job whose latest event numbers are kept


class Record:
    """The stored state and events of one job."""

    def __init__(self, owner: str | None, retention: Retention) -> None:
        self.epoch = new_epoch()
        self.seq = 0
        self.state = "pending"
        self.info = JobInfo(owner=owner)
        self._began = ""  # the timestamp of the first event
        self.history = History(retention)
        self._retention = retention
        self._late = 0  # log lines after the end
        # Each publisher's latest number; the publisher of the latest event is last.
        self.numbers: dict[str, int] = {}
        self.runs = Runs()
        self.cancellation: Cancellation | None = None  # of the current sending
        self._ending_head = ""  # of the cancellation's terminal event
        self._request_head = ""  # of the cancellation's ``cancelling`` event
        self.expires_at = 0.0

    @property
    def owner(self) -> str | None:
        return self.info.owner

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL_STATES

    def add(self, outgoing: Outgoing, publisher: str = "") -> list[Message]:
        """Store an event and return its message; none for a duplicate or an outdated event.

        A message about the job's cancellation may follow it.
        """
        if self._is_handled(outgoing, publisher):
            return []
        if outgoing.number:
            self._remember(publisher, outgoing.number)
        standing = self.runs.standing(outgoing.run)
        if self._is_foreign(outgoing):
            if standing != "newer" or not _is_wanted(outgoing, "pending"):
                return []
            self._begin_for_owner(outgoing)
        elif not _is_wanted(outgoing, self.state, standing):
            return []
        if outgoing.owner and not self.owner:
            self._set_owner(outgoing.owner)
        is_late = self._is_late(outgoing, standing)
        is_dropped = is_late and not (outgoing.kind == LOG and self._late < self._retention.size)
        if is_dropped:
            self._describe_late(outgoing)
            messages = []
        else:
            messages = [self._append(outgoing, standing, is_late)]
        if self._covers(outgoing) and not self.has_ended:
            messages += self._continue_cancellation(outgoing, standing)
        if messages:
            self._extend_life()
        return messages

    @property
    def is_final(self) -> bool:
        """Whether the job has ended, and no message of a covered run may still arrive."""
        return self.has_ended and self.cancellation is None

    def _extend_life(self) -> None:
        ttl = self._retention.ttl if self.is_final else self._retention.active_ttl
        self.expires_at = time.monotonic() + ttl

    @property
    def sending(self) -> str:
        """The sending of the current run, which a request to cancel the job covers."""
        return "" if self.runs.current is None else self.runs.current.sending

    def cancel_answer(
        self, cancellation: Cancellation, *, is_passed_on: bool = False
    ) -> CancelAnswer | None:
        """Return the answer to a request that has no effect; None if it would have one.

        Args:
            cancellation: the request.
            is_passed_on: whether the workers have the request. A run that receives a request before
                its body begins is cancelled, even if the job is not cancellable.
        """
        if not cancellation.applies_to(self.owner):
            return CancelAnswer(outcome="job_not_found")
        if self.has_ended:
            return CancelAnswer(outcome="already_ended")
        takes_effect = is_passed_on and self._is_running and cancellation.covers(Run(self.sending))
        if not (self.info.cancellable or takes_effect):
            return CancelAnswer(outcome="not_cancellable")
        if self.cancellation is not None:
            return CancelAnswer(outcome="requested", terminates=self.info.terminates)
        return None

    def cancel(
        self, cancellation: Cancellation, *, is_passed_on: bool = False
    ) -> tuple[CancelAnswer, list[Message]]:
        """Cancel the current sending, and return the answer and the messages about it."""
        answer = self.cancel_answer(cancellation, is_passed_on=is_passed_on)
        if answer is not None:
            return answer, []
        sending = self.sending or cancellation.sending
        self.cancellation = structs.replace(cancellation, sending=sending, owner=UNSET)
        self._request_head, self._ending_head = cancellation.request_head, cancellation.ending_head
        if self._is_running:
            messages, terminates = [self._append_request("")], self.info.terminates
            answer = CancelAnswer(outcome="requested", terminates=terminates)
        else:
            messages, answer = [self._append_ending("")], CancelAnswer(outcome="cancelled")
        self._extend_life()
        return answer, messages

    def cancellation_of(self, outgoing: Outgoing) -> Cancellation | None:
        """Return the request that covers the sending of an event, or an event without a run."""
        kept, run = self.cancellation, outgoing.run
        if self._is_foreign(outgoing) and self.runs.standing(run) == "newer":
            return None  # another owner's job, whose record has not begun
        return kept if kept is not None and (not run.is_known or kept.covers(run)) else None

    def _is_foreign(self, outgoing: Outgoing) -> bool:
        return bool(outgoing.owner and self.owner and outgoing.owner != self.owner)

    @property
    def _is_running(self) -> bool:
        is_reserved = self.runs.current is not None and self.runs.current.attempt == 0
        return self.state not in WAITING_STATES and not (self.state == "stalled" and is_reserved)

    def _covers(self, outgoing: Outgoing) -> bool:
        if self.cancellation is None:
            return False
        if not outgoing.run.is_known:
            return not outgoing.begins
        return self.cancellation.covers(outgoing.run)

    def _continue_cancellation(self, outgoing: Outgoing, standing: Standing) -> list[Message]:
        """End a covered job that is no longer running, or publish ``cancelling`` again."""
        timestamp = timestamp_of(outgoing.head)
        if self.state in WAITING_STATES or _begins_again(outgoing, standing):
            return [self._append_ending(timestamp)]
        return [self._append_request(timestamp)] if self.state == "started" else []

    def _append_request(self, timestamp: str) -> Message:
        return self._append_own(STATUS, self._request_head, timestamp, "cancelling")

    def _append_ending(self, timestamp: str) -> Message:
        return self._append_own(TERMINAL, self._ending_head, timestamp, "cancelled")

    def _append_own(self, kind: Kind, head: str, timestamp: str, state: str) -> Message:
        head = with_timestamp(head, timestamp)
        return self._append(Outgoing(job_id="", kind=kind, head=head, state=state), "same", False)

    def _append(self, outgoing: Outgoing, standing: Standing, is_late: bool) -> Message:
        run: int | None = None
        attempt: int | None = None
        if is_late:
            self._late += self.has_ended
            attempt = max(1, outgoing.run.attempt) if outgoing.run.is_known else None
        elif standing == "newer":
            self.runs.adopt(outgoing.run)
        if self.cancellation is not None and not is_late and not self._covers(outgoing):
            self.cancellation = None  # the job was sent again
        if outgoing.begins:
            self._late = 0
            # Progress of an earlier run does not apply to the new one.
            self.history.progress = None
            if self.has_ended:
                self.history.clear()
                self.info, self._began = JobInfo(owner=self.owner), ""
        if outgoing.info:
            added = decode_info(outgoing.info)
            completes = outgoing.completes_info
            self.info = self.info.completed(added) if completes else self.info.updated(added)
        if outgoing.state == "started":
            self.runs.count += outgoing.begins
            run = self.runs.count
        self.seq += 1
        self._began = self._began or timestamp_of(outgoing.head)
        shown = self.info if outgoing.kind == INFO and outgoing.info else NO_INFO
        packet = outgoing.head + packet_tail(self.seq, run, attempt, shown)
        message = Message(self.epoch, self.seq, outgoing.kind, packet)
        self.history.add(message)
        if outgoing.state is not None:
            self.state = outgoing.state
        elif self.state == "pending":
            self.state = "started"  # the start event is missing, but the job runs
        return message

    def _describe_late(self, outgoing: Outgoing) -> None:
        """Add missing fields to the description, from an outdated event of the same sending.

        The record may have begun with the ending, whose publisher did not know the description.
        """
        current = self.runs.current
        if not outgoing.info or outgoing.completes_info or current is None:
            return
        if not outgoing.run.sending or outgoing.run.sending != current.sending:
            return
        info = self.info.completed(decode_info(outgoing.info))
        if info != self.info:
            self.info = info
            self.renew_epoch()  # the only sign of the change: there is no message

    def _is_handled(self, outgoing: Outgoing, publisher: str) -> bool:
        return 0 < outgoing.number <= self.numbers.get(publisher, 0)

    def _remember(self, publisher: str, number: int) -> None:
        self.numbers.pop(publisher, None)
        self.numbers[publisher] = number
        if len(self.numbers) > PUBLISHERS:
            del self.numbers[next(iter(self.numbers))]

    def _is_late(self, outgoing: Outgoing, standing: Standing) -> bool:
        """Return whether the event comes after its run: a newer run began, or the job ended."""
        if standing == "past":
            return True
        if self._covers(outgoing) and _begins_again(outgoing, standing):
            return True
        is_next = outgoing.begins and (standing == "newer" or not outgoing.run.is_known)
        return self.has_ended and not is_next

    def _begin_for_owner(self, outgoing: Outgoing) -> None:
        """Begin a new record for another owner, but keep the data that detects late events."""
        self.runs.retire(outgoing.run)
        self.runs.count = 0
        self.epoch, self.seq, self.state = new_epoch(), 0, "pending"
        self.cancellation = None
        self.info, self._began = JobInfo(owner=outgoing.owner), ""
        self.history, self._late = History(self._retention), 0

    def _set_owner(self, owner: str) -> None:
        """Set the owner, in a new epoch: followers of an unowned job must be authorized again."""
        self.info = structs.replace(self.info, owner=owner)
        self.renew_epoch()

    def has_to_wait(self, outgoing: Outgoing, publisher: str) -> bool:
        """Return whether the event is new and has to wait for an earlier event."""
        if self._is_handled(outgoing, publisher):
            return False
        other, number, _ = Predecessor.parse(outgoing.after)
        if self.numbers.get(other, 0) < number:
            return True
        return self.numbers.get(publisher, 0) < outgoing.previous

    def renew_epoch(self) -> None:
        """Change the epoch, so that no client resumes from an earlier cursor."""
        self.epoch = new_epoch()
        self.history.renew_epoch(self.epoch)

    @property
    def position(self) -> Cursor:
        return Cursor(epoch=self.epoch, seq=self.seq)

    def summary(self, job_id: str) -> JobSummary:
        """Return the summary of the job with this record."""
        packets = (message.packet for message in self.history.summarized)
        return summarize(job_id, self.position, self.state, self.info, self._began, packets)

    def snapshot(self, after: Cursor | None) -> Snapshot:
        complete_from = self.history.complete_from
        recovered = can_resume(after, epoch=self.epoch, seq=self.seq, complete_from=complete_from)
        seen = after.seq if after is not None and recovered else 0
        return Snapshot(
            epoch=self.epoch,
            seq=self.seq,
            state=self.state,
            info=self.info,
            events=tuple(self.history.after(seen)),
            recovered=recovered,
            complete_from=complete_from,
        )


class Records:
    """The records of many jobs, bounded by number, number of events and age.

    Above a limit, the ended record whose latest event is the oldest is dropped first, or an active
    record if none has ended. Not thread-safe.
    """

    def __init__(
        self,
        retention: Retention,
        max_records: int = MAX_RECORDS,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self._retention = retention
        self._max_records = max_records
        self._max_events = max_events
        self._events = 0
        # Ordered by the latest event, so that the records that expire next are at the front.
        self._active: OrderedDict[str, Record] = OrderedDict()
        self._ended: OrderedDict[str, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._active) + len(self._ended)

    def add(self, outgoing: Outgoing, publisher: str = "") -> list[Message]:
        """Store an event and return its message; none for a duplicate or an outdated event.

        A message about the job's cancellation may follow it.
        """
        record = self._take(outgoing.job_id)
        if record is None:
            if not _is_wanted(outgoing, "pending"):
                return []
            record = Record(outgoing.owner, self._retention)
        before = len(record.history)
        messages = record.add(outgoing, publisher)
        self._put_back(outgoing.job_id, record, before)
        return messages

    def cancel_answer(
        self, cancellation: Cancellation, *, is_passed_on: bool = False
    ) -> CancelAnswer | None:
        """Return the answer to a request that has no effect; None if it would have one."""
        record = self.get(cancellation.job_id)
        if record is None:
            return CancelAnswer(outcome="job_not_found")
        return record.cancel_answer(cancellation, is_passed_on=is_passed_on)

    def sending_of(self, job_id: str) -> str:
        """Return the sending of a job's current run; an empty text if there is none."""
        record = self.get(job_id)
        return "" if record is None else record.sending

    def cancel(
        self, cancellation: Cancellation, *, is_passed_on: bool = False
    ) -> tuple[CancelAnswer, list[Message]]:
        """Cancel a job, and return the answer and the messages about it."""
        record = self._take(cancellation.job_id)
        if record is None:
            return CancelAnswer(outcome="job_not_found"), []
        before = len(record.history)
        answer, messages = record.cancel(cancellation, is_passed_on=is_passed_on)
        self._put_back(cancellation.job_id, record, before)
        return answer, messages

    def cancellation_of(self, outgoing: Outgoing) -> Cancellation | None:
        """Return the request that covers the sending of an event."""
        record = self.get(outgoing.job_id)
        return None if record is None else record.cancellation_of(outgoing)

    def kept_cancellation(self, job_id: str) -> Cancellation | None:
        """Return the request to cancel the current sending of a job."""
        record = self.get(job_id)
        return None if record is None else record.cancellation

    def notice_of(self, job_id: str, answer: CancelAnswer) -> Cancellation | None:
        """Return the notice for the control channel after an answer; None if there is none."""
        record = self.get(job_id)
        if record is None or record.cancellation is None or not answer.is_accepted:
            return None
        task = record.info.task or ""
        return structs.replace(record.cancellation, outcome=answer.outcome, task=task)

    def _take(self, job_id: str) -> Record | None:
        self._expire()
        return self._active.pop(job_id, None) or self._ended.pop(job_id, None)

    def _put_back(self, job_id: str, record: Record, before: int) -> None:
        """Put a changed record last, and drop others above a limit.

        Args:
            job_id: the id of the job.
            record: the record of the job.
            before: the number of its events before the change.
        """
        self._events += len(record.history) - before
        (self._ended if record.is_final else self._active)[job_id] = record
        while len(self) > 1 and (len(self) > self._max_records or self._events > self._max_events):
            self._drop_first(self._ended if len(self._ended) else self._active)

    def has_to_wait(self, outgoing: Outgoing, publisher: str) -> bool:
        """Return whether the event has to wait for an earlier event.

        Without a record it is unknown which events were published before. The event then waits only
        for a predecessor that may still be in transit.
        """
        if not outgoing.after and not outgoing.previous:
            return False
        record = self.get(outgoing.job_id)
        if record is None:
            return Predecessor.parse(outgoing.after).may_be_in_transit(time.time())
        return record.has_to_wait(outgoing, publisher)

    def get(self, job_id: str) -> Record | None:
        self._expire()
        return self._active.get(job_id) or self._ended.get(job_id)

    def renew_epoch(self) -> None:
        """Change the epoch of every record, because any of them may miss events."""
        for records in (self._active, self._ended):
            for record in records.values():
                record.renew_epoch()

    def snapshot(self, job_id: str, after: Cursor | None) -> Snapshot:
        record = self.get(job_id)
        return Snapshot() if record is None else record.snapshot(after)

    def info(self, job_id: str) -> JobInfo:
        record = self.get(job_id)
        return NO_INFO if record is None else record.info

    def position(self, job_id: str) -> Cursor:
        record = self.get(job_id)
        return Cursor(epoch="", seq=0) if record is None else record.position

    def _expire(self) -> None:
        now = time.monotonic()
        for records in (self._active, self._ended):
            while records and next(iter(records.values())).expires_at <= now:
                self._drop_first(records)

    def _drop_first(self, records: OrderedDict[str, Record]) -> None:
        _, record = records.popitem(last=False)
        self._events -= len(record.history)


def _is_wanted(outgoing: Outgoing, state: str, standing: Standing = "newer") -> bool:
    """Return whether the job is in the state that the event requires."""
    if outgoing.requires in ("", state):
        return True
    if state == "cancelling":
        # A cancelled run can stall, and a stalled one can be cancelled before it is lost.
        is_lost = outgoing.requires == "stalled" and outgoing.kind == TERMINAL
        return is_lost or outgoing.requires == "started"
    # A run can stall before its ``started`` event arrives.
    begun = standing == "newer" and outgoing.run.is_known and state not in TERMINAL_STATES
    return begun and outgoing.requires == "started"


def _begins_again(outgoing: Outgoing, standing: Standing) -> bool:
    """Return whether the event begins another run, as after a redelivery."""
    return outgoing.begins and standing == "newer"
