"""The server side of requests to cancel jobs over RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import structs

from jobcast.aio import BackgroundTasks, Backoff, shielded
from jobcast.errors import TransportUnavailable
from jobcast.transports.amqp.cancellation import CancelRequest, SeenRequests
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.base import Message
from jobcast.transports.cancellation import KEPT_FOR, CancelAnswer, Cancellation
from jobcast.transports.decoding import decoded
from jobcast.transports.record import Records
from jobcast.transports.runs import first_sending
from jobcast.transports.thread_calls import ThreadCalls

CANCEL_MESSAGES: Final = (False, True, True)  # which take effect; the last one for a job sent again
CANCEL_TIMEOUT: Final = 5.0  # seconds until a request has come back from the broker
FIRST_DELAY: Final = 0.2  # seconds before a failed withdrawal is repeated
LONGEST_DELAY: Final = 10.0  # seconds between two attempts to withdraw a request
MAX_WITHDRAWING: Final = 1000  # requests to withdraw while the broker is unreachable

logger = logging.getLogger(__name__)


class Canceller:
    """Sends the requests of this process's clients, and answers them by its own records.

    The workers have a request before it takes effect. A request that has no effect, or has failed
    for its client, is therefore withdrawn, for as long as that takes. If its message is late and it
    takes effect nevertheless, the workers get it again. Withdrawals that have not succeeded when
    the process ends are given up, and so are some while more than ``MAX_WITHDRAWING`` wait. Others
    end after ``KEPT_FOR`` seconds.

    Belongs to one event loop.

    Args:
        publisher: a publisher that nothing else uses.
        records: the history of this process.
        seen: the requests that have arrived.
        on_cancelled: called with a job that a request has cancelled, and the messages about it.
    """

    def __init__(
        self,
        publisher: KombuPublisher,
        records: Records,
        seen: SeenRequests,
        on_cancelled: Callable[[str, list[Message]], None],
    ) -> None:
        self._publisher = publisher
        self._records = records
        self._seen = seen
        self._on_cancelled = on_cancelled
        self._calls = ThreadCalls()  # of the publisher
        self._waiting: dict[str, asyncio.Future[CancelAnswer | Cancellation]] = {}  # by request
        self._withdrawing: dict[str, CancelRequest] = {}  # by request
        self._announcing: set[str] = set()  # jobs
        self._tasks = BackgroundTasks()

    async def aclose(self) -> None:
        await self._tasks.cancel()
        for request in self._withdrawing.values():
            self._log_given_up(request, "this process ends")
        self._withdrawing.clear()
        await self._calls.close(self._publisher.close)

    async def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        """Cancel a job, and return the answer of this process's record.

        A request goes on if its caller is cancelled.

        Raises:
            TransportUnavailable: the broker did not deliver the request in time, or the job was
                sent again. The request may take effect within seconds, and not later.
        """
        return await shielded(self._tasks.spawn(self._cancel(cancellation)))

    def receive(self, body: bytes | str) -> None:
        """Handle a request of any process, in its place among the events."""
        request = decoded(CancelRequest.decode, body, "the exchange of events")
        if request is None:
            return
        is_own = request.sender == self._publisher.publisher_id
        if (is_own or request.takes_effect) and self._seen.add(request.id):
            answer = self._answer(request)
            if is_own:
                self._return_answer(request, answer)

    def announce(self, cancellations: Iterable[Cancellation]) -> None:
        """Tell the workers of accepted requests, each job once at a time."""
        for cancellation in cancellations:
            if cancellation.job_id not in self._announcing:
                self._announcing.add(cancellation.job_id)
                self._tasks.spawn(self._send_notice(cancellation))

    async def _cancel(self, cancellation: Cancellation) -> CancelAnswer:
        for takes_effect in CANCEL_MESSAGES:
            answer = await self._request(cancellation, takes_effect=takes_effect)
            if isinstance(answer, CancelAnswer):
                return answer
            cancellation = answer
        raise TransportUnavailable("the job was sent again meanwhile; repeat the request")

    async def _request(
        self, cancellation: Cancellation, *, takes_effect: bool
    ) -> CancelAnswer | Cancellation:
        """Send a request to all processes, and return this process's answer.

        The request follows all events that were published before.

        Returns:
            The answer, or a cancellation with the sending that the request has to name.
        """
        sender = self._publisher.publisher_id
        request = CancelRequest.of(cancellation, sender, takes_effect=takes_effect)
        answer: asyncio.Future[CancelAnswer | Cancellation] = (
            asyncio.get_running_loop().create_future()
        )
        self._waiting[request.id] = answer
        try:
            await self._calls.run(self._publisher.request_cancellation, request)
            async with asyncio.timeout(CANCEL_TIMEOUT):
                return await asyncio.shield(answer)
        except (TransportUnavailable, TimeoutError) as exc:
            if answer.done():  # the request came back, although the broker did not confirm it
                return answer.result()
            if takes_effect:
                self._withdraw(request)
            if isinstance(exc, TransportUnavailable):
                raise
            raise TransportUnavailable(
                f"the request to cancel a job did not come back within {CANCEL_TIMEOUT:.0f} s"
            ) from None
        finally:
            del self._waiting[request.id]

    def _return_answer(self, request: CancelRequest, answer: CancelAnswer | Cancellation) -> None:
        """Tell the workers and the client about a request of this process."""
        is_accepted = isinstance(answer, CancelAnswer) and answer.is_accepted
        if request.takes_effect and not is_accepted:
            self._withdraw(request, answer)
            return
        if request.takes_effect and request.id not in self._waiting:
            self._tasks.spawn(self._pass_again(request))
        self._finish(request, answer)
        self._announce_accepted(request.cancellation.job_id, answer)

    def _finish(self, request: CancelRequest, answer: CancelAnswer | Cancellation) -> None:
        waiting = self._waiting.get(request.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _withdraw(
        self, request: CancelRequest, answer: CancelAnswer | Cancellation | None = None
    ) -> None:
        """Withdraw a request in the background, and return its answer after the first attempt."""
        self._withdrawing[request.id] = request
        self._tasks.spawn(self._keep_withdrawing(request, answer))

    async def _keep_withdrawing(
        self, request: CancelRequest, answer: CancelAnswer | Cancellation | None
    ) -> None:
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        until = time.monotonic() + KEPT_FOR  # then the broker no longer has the request
        while request.id in self._withdrawing:
            try:
                await self._calls.run(self._publisher.withdraw_cancellation, request)
                self._withdrawing.pop(request.id, None)
            except TransportUnavailable as exc:
                if time.monotonic() > until:
                    self._withdrawing.pop(request.id, None)
                elif len(self._withdrawing) > MAX_WITHDRAWING:
                    self._withdrawing.pop(request.id, None)
                    self._log_given_up(request, exc)
                else:
                    self._log_failure(request, exc, backoff.failures)
            if answer is not None:
                self._finish(request, answer)
            if request.id in self._withdrawing:
                backoff.failed()
                await asyncio.sleep(backoff.delay())

    def _log_failure(self, request: CancelRequest, exc: Exception, failures: int) -> None:
        logger.log(
            logging.DEBUG if failures else logging.WARNING,
            "job %s: could not withdraw a request to cancel it (%s); trying again",
            request.cancellation.job_id, exc,
        )  # fmt: skip

    def _log_given_up(self, request: CancelRequest, reason: object) -> None:
        logger.warning(
            "job %s: gave up withdrawing a request to cancel it (%s): the request cancels a"
            " redelivered run for up to %d h",
            request.cancellation.job_id, reason, KEPT_FOR // 3600,
        )  # fmt: skip

    async def _pass_again(self, request: CancelRequest) -> None:
        """Pass a request to the workers that is in force after its withdrawal."""
        self._withdrawing.pop(request.id, None)
        try:
            await self._calls.run(self._publisher.pass_to_workers, request)
        except TransportUnavailable as exc:
            logger.warning(
                "job %s: could not pass its cancellation to the workers (%s); repeating it when"
                " its lease is renewed", request.cancellation.job_id, exc,
            )  # fmt: skip

    def _answer(self, request: CancelRequest) -> CancelAnswer | Cancellation:
        """Cancel the job if the request names the current sending."""
        job_id = request.cancellation.job_id
        is_passed_on = request.takes_effect
        answer = self._records.cancel_answer(request.cancellation, is_passed_on=is_passed_on)
        if answer is not None:
            return answer
        sending = self._records.sending_of(job_id)
        # A record that began with an event without a run has no sending.
        is_covered = first_sending(sending) in ("", first_sending(request.cancellation.sending))
        if not (request.takes_effect and is_covered):
            return structs.replace(request.cancellation, sending=sending)
        answer, messages = self._records.cancel(request.cancellation, is_passed_on=True)
        self._on_cancelled(job_id, messages)
        return answer

    def _announce_accepted(self, job_id: str, answer: CancelAnswer | Cancellation) -> None:
        if isinstance(answer, Cancellation):
            return
        notice = self._records.notice_of(job_id, answer)
        if notice is not None:
            self.announce([notice])

    async def _send_notice(self, cancellation: Cancellation) -> None:
        try:
            await self._calls.run(self._publisher.announce_cancellation, cancellation)
        except TransportUnavailable as exc:
            logger.warning(
                "job %s: could not tell the workers that it is cancelled (%s); repeating it when"
                " its lease is renewed", cancellation.job_id, exc,
            )  # fmt: skip
        finally:
            self._announcing.discard(cancellation.job_id)
