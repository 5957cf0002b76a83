"""Everything for real, while everything breaks: does each client see each event once, in order?

python -m bench.soak --seconds 60 --seed 1 --jobs 8 --clients 24

Two Valkeys, a Celery worker and two Socket.IO processes run on this machine, the latter behind
proxies. Stock clients follow jobs whose transcripts follow from the seed, and come back by
themselves as PROTOCOL.md says, while processes are killed and connections are reset. What they were
sent is compared with what the jobs have said, and with the record that is left in the end.

The exit code is 0 if nothing was lost, repeated or reordered and every job ended as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import socketio
from celery import Celery
from socketio.exceptions import SocketIOError

from bench import soak_jobs
from bench.chaos import Faults, Proxy, Realtime, Valkey
from bench.soak_jobs import Script
from jobcast.tokens import mint
from jobcast.worker import process
from tests.support import SECRET, Process, eventually, running

OWNER: Final = "soak"
CONNECT_TIMEOUT: Final = 10.0  # seconds
ANSWER_TIMEOUT: Final = 20.0  # seconds that a server may take to answer a request
JOB_TIMEOUT: Final = 120.0  # seconds that a job may take, with all that is in its way
SILENCE: Final = 60.0  # seconds without any event, after which nothing is expected any more
WITNESSED: Final = 100  # jobs at a time, fewer than a connection may follow
SHOWN: Final = 8  # findings that are printed in full
AROUND: Final = 4  # events that are shown before and after the place

Kind = Literal["lost", "repeated", "reordered", "wrong"]


# What one client was sent of one job -----------------------------------------------------------


@dataclass
class Join:
    """A ``join_job`` that was sent. ``recovered`` is what it was answered, if it was accepted."""

    after: tuple[str, int] | None = None  # epoch and seq
    recovered: bool | None = None
    refused: str = ""
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Joined:
    epoch: str
    seq: int
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Event:
    seq: int
    said: str  # as in ``Script.transcript``
    is_progress: bool = False
    is_end: bool = False
    at: float = field(default=0.0, compare=False)


Entry = Join | Joined | Event
Connection = list[Entry]  # what one connection was sent of a job, in order


@dataclass(frozen=True)
class Finding:
    kind: Kind
    what: str
    place: tuple[str, ...] = ()  # expected or received events around it


@dataclass
class Examined:
    """What a transcript comes to."""

    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    announced: int = 0  # repeats that a snapshot, ``recovered: false``, brings
    story: list[Event] = field(default_factory=list)  # of the last epoch, each event once
    epochs: int = 0
    begun_before_queued: int = 0

    def find(self, kind: Kind, what: str, place: Iterable[str] = ()) -> None:
        self.findings.append(Finding(kind, what, tuple(place)))


def examine(connections: Sequence[Connection], script: Script) -> Examined:
    """Check all that a client was sent of a job that has ended."""
    examined = examine_order(connections)
    examine_story(examined, script)
    return examined


def examine_order(connections: Sequence[Connection]) -> Examined:
    """Check what the numbers say: on each connection, and over all of them."""
    examined = Examined()
    epoch, seen = "", dict[int, Event]()
    for number, connection in enumerate(connections, 1):
        join: Join | None = None
        high, repeats_to, begun = 0, 0, False
        sent: set[int] = set()
        for entry in connection:
            if isinstance(entry, Join):
                join = entry
            elif isinstance(entry, Joined):
                begun = True
                same = join is None or (join.after is not None and join.after[0] == entry.epoch)
                if (join is not None and join.recovered is not True) or entry.epoch != epoch:
                    high, sent = 0, set()
                if join is not None and join.after is not None and same:
                    # Without an answer nobody knows whether it was to be a snapshot.
                    high = max(high, join.after[1] if join.recovered else 0)
                    repeats_to = 0 if join.recovered else join.after[1]
                join = None
                if entry.epoch != epoch:
                    epoch, seen = entry.epoch, {}
                    examined.epochs += bool(epoch)
                    examined.story.clear()
            else:
                examined.events += 1
                where = f"{entry.said!r} (seq {entry.seq}) on connection {number}"
                place = [told(event) for event in examined.story[-AROUND:]]
                if not begun:
                    examined.find("reordered", f"{where} came before joined", place)
                if entry.seq in sent:
                    examined.find("repeated", f"{where} came on it before", place)
                elif entry.seq in seen:
                    if entry.seq <= repeats_to:
                        examined.announced += 1
                    else:
                        examined.find("repeated", f"{where} came before", place)
                elif entry.seq <= high:
                    examined.find("reordered", f"{where} came although seq {high} was", place)
                elif examined.story and entry.seq < examined.story[-1].seq:
                    last = examined.story[-1].seq
                    examined.find("reordered", f"{where} came after seq {last}", place)
                sent.add(entry.seq)
                high = max(high, entry.seq)
                if entry.seq not in seen:
                    seen[entry.seq] = entry
                    examined.story.append(entry)
    return examined


def examine_story(examined: Examined, script: Script) -> None:
    """Check that what was sent, each event once, is what the job has said."""
    expected, story = script.transcript(), examined.story
    got = [event.said for event in story if not event.is_progress and not event.is_end]
    if soak_jobs.QUEUED not in got:
        # Its sender could not say so before a worker began: then it was not true any more.
        examined.begun_before_queued = 1
        expected = expected[1:]
    _compare(examined, expected[:-1], got)
    _examine_end(examined, expected[-1])
    progress = [event.said for event in story if event.is_progress]
    if script.last_progress not in progress:
        examined.find("lost", f"progress {script.last_progress!r}", progress[-AROUND:])
    elif progress[-1] != script.last_progress:
        what = f"progress {progress[-1]!r} came after {script.last_progress!r}"
        examined.find("reordered", what, progress[-AROUND:])


def _compare(examined: Examined, expected: Sequence[str], got: Sequence[str]) -> None:
    missing = Counter(expected) - Counter(got)
    for index, said in enumerate(expected):
        if said in missing:
            examined.find("lost", repr(said), _around(expected, index))
    left, furthest = Counter(expected), -1
    places = {said: index for index, said in enumerate(expected)}
    for index, said in enumerate(got):
        if said not in places:
            examined.find("wrong", f"{said!r} was never said", _around(got, index))
        elif not left[said]:
            what = f"{said!r} was stored twice, under two numbers"
            examined.find("repeated", what, _around(got, index))
        else:
            left[said] -= 1
            if places[said] < furthest:
                what = f"{said!r} came after {expected[furthest]!r}"
                examined.find("reordered", what, _around(got, index))
            furthest = max(furthest, places[said])


def _examine_end(examined: Examined, expected: str) -> None:
    story = examined.story
    ends = [(index, event) for index, event in enumerate(story) if event.is_end]
    if not ends:
        examined.find("lost", f"the end, {expected!r}", map(told, story[-AROUND:]))
        return
    for _, event in ends[1:]:
        examined.find("wrong", f"{event.said!r} (seq {event.seq}) is another end")
    index, event = ends[0]
    if event.said != expected:
        examined.find("wrong", f"it ended with {event.said!r} instead of {expected!r}")
    if index != len(story) - 1:
        after = [told(event) for event in story[index:][: AROUND + 1]]
        examined.find("wrong", f"{after[1]!r} came after the end", after)


def _around(texts: Sequence[str], index: int) -> tuple[str, ...]:
    marked = [f"> {text}" if i == index else text for i, text in enumerate(texts)]
    return tuple(marked[max(0, index - AROUND) : index + AROUND + 1])


def told(event: Event) -> str:
    return f"{event.seq} {'progress ' if event.is_progress else ''}{event.said}"


def event_of(name: str, data: dict[str, Any], at: float = 0.0) -> Event | None:
    """A job event as the transcript has it; None for one that a client does not know."""
    seq: int = data["seq"]
    match name:
        case "job_status":
            words = [data["status"], *([str(data["attempt"])] if "attempt" in data else [])]
            return Event(seq, " ".join(words), at=at)
        case "job_log":
            return Event(seq, data["message"], at=at)
        case "job_progress":
            return Event(seq, str(data["message"]), is_progress=True, at=at)
        case "job_complete":
            return Event(seq, soak_jobs.completed(data["result"]), is_end=True, at=at)
        case "job_error":
            said = soak_jobs.failed(data["error"], data["message"], data["reason"])
            return Event(seq, said, is_end=True, at=at)
    return None


# Options and report ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    seconds: float = 60.0
    seed: int = 1
    jobs: int = 8  # at a time
    clients: int = 24
    keep: bool = False  # the logs, also if all is well


@dataclass(frozen=True)
class Problem:
    """A finding, and whose it is."""

    client: str
    job_id: str
    finding: Finding


def described(problems: Iterable[Problem]) -> list[str]:
    """For people. What the record has already got wrong, all that follow the job were sent so."""
    groups: dict[tuple[str, Kind, str], list[Problem]] = {}
    for problem in problems:
        finding = problem.finding
        groups.setdefault((problem.job_id, finding.kind, finding.what), []).append(problem)
    texts: list[str] = []
    for (job_id, kind, what), group in groups.items():
        clients = ", ".join(problem.client for problem in group)
        place = "".join(f"\n    {line}" for line in group[0].finding.place)
        texts.append(f"{kind}: {what}\n  {job_id}, {clients}{place}")
    return texts


@dataclass
class Report:
    seed: int
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def found(self, kind: Kind) -> int:
        return sum(problem.finding.kind == kind for problem in self.problems)

    @property
    def lost(self) -> int:
        return self.found("lost")

    @property
    def repeated(self) -> int:
        return self.found("repeated")

    @property
    def reordered(self) -> int:
        return self.found("reordered")

    @property
    def wrong(self) -> int:
        return self.found("wrong")

    @property
    def server_errors(self) -> int:
        return self.counts["joins refused: internal_error"]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.server_errors

    def table(self) -> str:
        rows = [
            ("seed", self.seed),
            *((f"fault: {kind}", count) for kind, count in self.faults.items()),
            *self.counts.items(),
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("reordered", self.reordered),
            ("wrong endings", self.wrong),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {number:>9}" for name, number in rows)

    def details(self) -> str:
        texts = described(self.problems)
        if len(texts) > SHOWN:
            texts[SHOWN:] = [f"and {len(texts) - SHOWN} more in {self.folder}/problems.txt"]
        return "\n\n".join(texts)


# The run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SentJob:
    job_id: str
    script: Script


class Followed:
    """A job that a client follows: where it is, and what it was sent."""

    def __init__(self, job: SentJob) -> None:
        self.job = job
        self.epoch = ""
        self.seq = 0
        self.ended = False
        self.connections: list[Connection] = []

    @property
    def after(self) -> tuple[str, int] | None:
        return (self.epoch, self.seq) if self.epoch else None

    def begin(self, joined: Joined) -> None:
        self.connections[-1].append(joined)
        if joined.epoch != self.epoch:
            self.epoch, self.seq, self.ended = joined.epoch, 0, False

    def receive(self, event: Event) -> None:
        self.connections[-1].append(event)
        self.seq = max(self.seq, event.seq)
        self.ended = self.ended or event.is_end

    def accept(self, epoch: str, seq: int) -> None:
        """The acknowledgement's cursor; an older one does not replace a newer one."""
        if epoch == self.epoch:
            self.seq = max(self.seq, seq)


class Client:
    """A stock Socket.IO client that comes back as PROTOCOL.md says."""

    def __init__(
        self, name: str, token: str, urls: Sequence[str], rng: random.Random, counts: Counter[str],
        *, leaves: float = 0.7,
    ) -> None:  # fmt: skip
        self.name = name
        self.followed: dict[str, Followed] = {}
        self._token = token
        self._urls = urls
        self._rng = rng
        self._counts = counts
        self._leaves = leaves  # how often it leaves a job that has ended
        self._lost = asyncio.Event()
        self._sio: socketio.AsyncClient | None = None
        self._connected = False
        self._joins: set[asyncio.Task[None]] = set()
        self.heard_at = 0.0

    @property
    def waiting(self) -> list[str]:
        """The jobs whose end has not come."""
        return [job_id for job_id, followed in self.followed.items() if not followed.ended]

    def follow(self, job: SentJob) -> None:
        followed = self.followed[job.job_id] = Followed(job)
        if self._connected:
            late = self._rng.choice((0.0, 0.0, self._rng.uniform(0, 2)))
            self._begin(followed, late)

    async def run(self) -> None:
        while True:
            self._lost.clear()
            try:
                await self._stay_connected(self._rng.choice(self._urls))
            except (SocketIOError, OSError, TimeoutError):
                self._counts["connections refused or cut at once"] += 1
            await asyncio.sleep(self._rng.uniform(0.02, 0.3))

    async def _stay_connected(self, url: str) -> None:
        async with self._connection(url) as sio:
            self._sio, self._connected = sio, True
            self._counts["connections"] += 1
            try:
                for followed in self.followed.values():
                    if not followed.ended or self._rng.random() < 0.05:
                        self._begin(followed)
                await self._lost.wait()
            finally:
                # What is still on its way to the handlers was not seen, and will be asked for.
                self._sio, self._connected = None, False
                for task in self._joins:
                    task.cancel()
                await asyncio.gather(*self._joins, return_exceptions=True)

    @asynccontextmanager
    async def _connection(self, url: str) -> AsyncIterator[socketio.AsyncClient]:
        # One of its own would be left open when a connection is refused.
        http = aiohttp.ClientSession()
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=http)

        async def receive(name: str, data: Any = None) -> None:
            if self._sio is sio:
                await self._receive(name, data)

        async def lose(*_: Any) -> None:
            if self._sio is sio:
                self._lost.set()

        sio.on("*", receive)
        sio.on("disconnect", lose)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await sio.connect(
                    url, auth={"token": self._token}, transports=["websocket"],
                    wait_timeout=CONNECT_TIMEOUT,
                )  # fmt: skip
            if not sio.connected or sio.eio.state != "connected":
                self._lost.set()
            yield sio
        finally:
            with suppress(TimeoutError, SocketIOError, OSError):
                async with asyncio.timeout(5):
                    await sio.disconnect()
            await http.close()

    def _begin(self, followed: Followed, late: float = 0.0) -> None:
        followed.connections.append([])
        task = asyncio.create_task(self._join(followed, late))
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)

    async def _join(self, followed: Followed, late: float) -> None:
        await asyncio.sleep(late)
        job_id = followed.job.job_id
        while True:
            join = Join(followed.after, at=time.monotonic())
            followed.connections[-1].append(join)
            payload: dict[str, Any] = {"job_id": job_id}
            if join.after is not None:
                payload["after"] = dict(zip(("epoch", "seq"), join.after, strict=True))
            answer = await self._request("join_job", payload)
            if answer is None:
                return
            if answer["ok"]:
                join.recovered = answer["recovered"]
                followed.accept(answer["epoch"], answer["seq"])
                self._counts["joins"] += 1
                self._counts["joins with after"] += join.after is not None
                self._counts["joins that recovered"] += answer["recovered"]
                return
            join.refused = answer["code"]
            self._counts[f"joins refused: {join.refused}"] += 1
            # That a job is not known is said of one, too, whose sender has no connection just now.
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))

    async def _request(self, name: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None if there will be none on this connection."""
        try:
            assert self._sio is not None
            answer: dict[str, Any] = await self._sio.call(name, payload, timeout=ANSWER_TIMEOUT)
        except socketio.exceptions.TimeoutError:
            self._counts["requests without an answer"] += 1
        except SocketIOError:
            pass
        else:
            return answer
        self._lost.set()
        return None

    async def _receive(self, name: str, data: Any) -> None:
        followed = self.followed.get(data.get("job_id"))
        if followed is None:
            return
        self.heard_at = at = time.monotonic()
        if name == "joined":
            followed.begin(Joined(data["epoch"], data["seq"], at=at))
        elif (event := event_of(name, data, at)) is not None:
            followed.receive(event)
            if event.is_end and self._rng.random() < self._leaves and self._sio is not None:
                # Nobody waits for the answer.
                with suppress(SocketIOError):
                    await self._sio.emit("leave_job", {"job_id": data["job_id"]})


class Soak:
    """One run, on servers that are there."""

    def __init__(
        self,
        options: Options,
        report: Report,
        proxies: Sequence[Proxy],
        note: Callable[[str], None],
    ) -> None:
        self._options = options
        self._report = report
        self._note = note
        self._rng = random.Random(f"soak {options.seed}")
        self._sent: list[SentJob] = []
        self._until = time.monotonic() + options.seconds
        urls = [proxy.url for proxy in proxies]
        self._clients = [self._client(number, urls) for number in range(options.clients)]

    async def run(self, faults: Faults) -> None:
        calm = min(8.0, self._options.seconds / 5)
        async with background(client.run() for client in self._clients):
            async with asyncio.TaskGroup() as group:
                group.create_task(faults.run(self._until - calm))
                for _ in range(self._options.jobs):
                    group.create_task(self._keep_sending())
            self._note("the last job has ended")
            await self._ends_of(self._clients)
            self._note("the clients are where they should be, or never will be")
        witness = self._witness()
        async with background([witness.run()]):
            for begin in range(0, len(self._sent), WITNESSED):
                for job in self._sent[begin : begin + WITNESSED]:
                    witness.follow(job)
                await self._ends_of([witness])
        self._clients.append(witness)

    def examine(self) -> None:
        """Put what the transcripts come to into the report."""
        counts = self._report.counts
        counts["jobs"] = len(self._sent)
        counts["transcripts"] = sum(len(client.followed) for client in self._clients)
        names = (
            "events checked", "repeats in snapshots after a join", "records begun anew",
            "begun before queued could be said",
        )  # fmt: skip
        counts.update(dict.fromkeys(names, 0))
        for client in self._clients:
            for job_id, followed in client.followed.items():
                examined = examine(followed.connections, followed.job.script)
                counts["events checked"] += examined.events
                counts["repeats in snapshots after a join"] += examined.announced
                counts["records begun anew"] += max(0, examined.epochs - 1)
                counts["begun before queued could be said"] += examined.begun_before_queued
                for finding in examined.findings:
                    self._report.problems.append(Problem(client.name, job_id, finding))
                if examined.findings:
                    path = self._report.folder / f"{client.name}-{job_id}.txt"
                    path.write_text(written(followed))

    def _client(self, number: int, urls: Sequence[str]) -> Client:
        # Some may follow any job, and so one of which nothing was published yet.
        jobs = ["*"] if number % 3 == 0 else []
        return Client(
            f"client-{number}", mint(SECRET, OWNER, jobs=jobs, ttl=24 * 3600), urls,
            random.Random(f"client {self._options.seed} {number}"), self._report.counts,
        )  # fmt: skip

    def _witness(self) -> Client:
        """A client that comes when all is over: it is sent the records as they are."""
        urls = self._clients[0]._urls
        rng = random.Random(f"witness {self._options.seed}")
        token = mint(SECRET, OWNER, ttl=24 * 3600)
        return Client("witness", token, urls, rng, Counter(), leaves=1)

    async def _keep_sending(self) -> None:
        while time.monotonic() < self._until:
            number = len(self._sent) + 1
            seed = self._options.seed * 1_000_000 + number
            # The id is not the seed's alone: a run does not meet the jobs of another.
            job = SentJob(f"soak-{seed}-{os.getpid()}", Script.of(seed))
            self._sent.append(job)
            share = max(2, len(self._clients) // 4)
            for client in self._rng.sample(self._clients, min(share, len(self._clients))):
                client.follow(job)
            await asyncio.to_thread(send, job)
            async with asyncio.timeout(JOB_TIMEOUT):
                while not await asyncio.to_thread(soak_jobs.has_ended, job.job_id):
                    await asyncio.sleep(0.05)

    async def _ends_of(self, clients: Sequence[Client]) -> None:
        """Wait for the end of each job at each client, while anything comes at all."""
        began = time.monotonic()
        while any(client.waiting for client in clients):
            heard_at = max([began, *(client.heard_at for client in clients)])
            if time.monotonic() - heard_at > SILENCE:
                return
            await asyncio.sleep(0.05)


def written(followed: Followed) -> str:
    """A transcript, for people."""
    lines = [f"expected: {', '.join(followed.job.script.transcript())}"]
    for number, connection in enumerate(followed.connections, 1):
        lines.append(f"connection {number}")
        for entry in connection:
            text = told(entry) if isinstance(entry, Event) else repr(entry)
            lines.append(f"  {entry.at:.3f} {text}")
    return "\n".join([*lines, ""])


def send(job: SentJob) -> None:
    signature = soak_jobs.work.owned_by(OWNER)
    signature.apply_async(args=[job.script.seed], task_id=job.job_id)


@asynccontextmanager
async def background(coroutines: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run them meanwhile; one that ends takes the rest with it."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    here = asyncio.current_task()
    assert here is not None
    failed: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            failed.append(problem)
            here.cancel()

    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        while running_still := [task for task in tasks if not task.done()]:
            # Python 3.11's wait_for loses a cancellation that comes with the answer.
            for task in running_still:
                task.cancel()
            await asyncio.wait(running_still, timeout=1)


@contextmanager
def sending(app: Celery, broker: str, events: str) -> Iterator[None]:
    """Make this process one that sends jobs of an app."""
    former = os.environ.get("JOBCAST_URL")
    os.environ["JOBCAST_URL"] = events
    app.conf.update(broker_url=broker, result_backend=broker)
    process.close()
    try:
        yield
    finally:
        process.close()
        app.close()
        if former is None:
            del os.environ["JOBCAST_URL"]
        else:
            os.environ["JOBCAST_URL"] = former


@contextmanager
def noting(folder: Path) -> Iterator[Callable[[str], None]]:
    """A file for what this process does and what jobcast says in it."""
    handler = logging.FileHandler(folder / "soak.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("bench.soak")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    loggers = logger, logging.getLogger("jobcast")
    for each in loggers:
        each.addHandler(handler)
    try:
        yield lambda text: logger.info("%.3f %s", time.monotonic(), text)
    finally:
        for each in loggers:
            each.removeHandler(handler)
        handler.close()


async def _run(options: Options, report: Report) -> None:
    folder = report.folder
    async with AsyncExitStack() as stack:
        note = stack.enter_context(noting(folder))
        broker = stack.enter_context(running(Valkey(folder / "broker", durable=False)))
        events = stack.enter_context(running(Valkey(folder / "events", durable=True)))
        broker.ready()
        events.ready()
        servers = [
            (stack.enter_context(_realtime(folder / f"realtime-{n}.log", events)), Proxy())
            for n in (1, 2)
        ]
        worker = stack.enter_context(running(_worker(options, folder, broker, events)))
        for server, proxy in servers:
            await proxy.start()
            stack.push_async_callback(proxy.aclose)
            await asyncio.to_thread(server.ready)
            proxy.target = server.port
        await eventually(lambda: "soak@here ready" in worker.log, "ready worker")
        stack.enter_context(sending(soak_jobs.app, broker.url, events.url))
        faults = Faults(events, servers, random.Random(f"faults {options.seed}"), note)
        report.faults = faults.injected
        run = Soak(options, report, [proxy for _, proxy in servers], note)
        try:
            await run.run(faults)
        finally:
            run.examine()


@contextmanager
def _realtime(log_path: Path, events: Valkey) -> Iterator[Realtime]:
    environ = {
        "JOBCAST_URL": events.url,
        "JOBCAST_JWT_SECRET": SECRET,
        # Clients stay in rooms of jobs that have ended.
        "JOBCAST_MAX_JOBS": "100000",
    }
    with running(Realtime(log_path, environ)) as server:
        yield server


def _worker(options: Options, folder: Path, broker: Valkey, events: Valkey) -> Process:
    return Process(
        [
            sys.executable, "-m", "celery", "-A", "bench.soak_jobs", "worker", "--loglevel=info",
            "-n", "soak@here", "--pool=prefork", f"--concurrency={options.jobs}",
            "--without-mingle", "--without-gossip",
        ],
        folder / "worker.log",
        {"JOBCAST_URL": events.url, "CELERY_BROKER_URL": broker.url},
    )  # fmt: skip


def soak(options: Options) -> Report:
    """Run it. The report's folder is there only if there is something to look for in it."""
    folder = Path(tempfile.mkdtemp(prefix="jobcast-soak-"))
    report = Report(options.seed, folder)
    try:
        asyncio.run(_run(options, report))
    except BaseException:
        print(f"the logs are in {folder}", file=sys.stderr)
        raise
    if report.problems:
        (folder / "problems.txt").write_text("\n\n".join(described(report.problems)) + "\n")
    if report.ok and not options.keep:
        shutil.rmtree(folder)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--seconds", type=float, default=Options.seconds)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--jobs", type=int, default=Options.jobs, help="at a time")
    parser.add_argument("--clients", type=int, default=Options.clients)
    parser.add_argument("--keep", action="store_true", help="the logs, also if all is well")
    options = Options(**vars(parser.parse_args()))
    # asyncio hears Ctrl-C by itself; whoever says SIGTERM means the same.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        report = soak(options)
    except KeyboardInterrupt:
        sys.exit(130)
    print(report.table())
    if not report.ok:
        print(f"\n{report.details()}")
    if report.folder.exists():
        print(f"\nthe logs are in {report.folder}")
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
