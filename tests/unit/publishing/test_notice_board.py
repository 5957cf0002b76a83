"""The shared memory through which the main process of a worker passes requests to its pool."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest

from jobcast.publishing.job import Job
from jobcast.publishing.notice_board import POLL, SLOTS, BoardReader, NoticeBoard
from jobcast.transports.cancellation import Cancellation
from tests.support import TIMEOUT, new_id
from tests.unit.publishing.test_job import Kept


@pytest.fixture
def board() -> NoticeBoard:
    return NoticeBoard()


@pytest.fixture
def job() -> Iterator[Job]:
    job = Job(Kept(), new_id())
    job.become_current()
    yield job
    job.restore_outer()


def test_a_request_reaches_a_fork(board: NoticeBoard) -> None:
    sent = Cancellation(job_id="a", by="alice", message="enough", sending="one")
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def read() -> None:
        while board.count == 0:
            pass
        answers.put((board.is_inherited, [*board.after(0)]))

    child = fork.Process(target=read)
    child.start()
    board.post(sent)
    child.join(TIMEOUT)
    assert child.exitcode == 0
    assert answers.get() == (True, [sent])
    assert not board.is_inherited


def test_the_latest_requests_stay_on_the_board(board: NoticeBoard) -> None:
    for number in range(SLOTS + 10):
        board.post(Cancellation(job_id=f"job-{number}"))
    found = [request.job_id for request in board.after(0)]
    assert found == [f"job-{number}" for number in range(10, SLOTS + 10)]
    assert [*board.after(board.count)] == []


@pytest.mark.parametrize(
    "request_", [
        Cancellation(job_id="a", by="alice", message="€" * 1000),
        Cancellation(job_id="a", by="alice", message="\x01" * 2000),
        Cancellation(job_id="a", by="\x01" * 2000, message="enough"),
        Cancellation(job_id="a", by="alice", owner="\x01" * 2000, message="€" * 1000),
    ],
)  # fmt: skip
def test_a_long_request_is_shortened(board: NoticeBoard, request_: Cancellation) -> None:
    board.post(request_)
    board.post(Cancellation(job_id="b"))
    found, other = board.after(0)
    assert (found.job_id, other.job_id) == ("a", "b")
    assert request_.message.startswith(found.message)


def test_a_reader_is_idle_without_a_run(board: NoticeBoard, job: Job) -> None:
    reader = BoardReader(board)
    assert reader.due_in == POLL
    job.restore_outer()
    assert reader.due_in is None
    job.become_current()


def test_a_run_that_begins_reads_earlier_requests(board: NoticeBoard, job: Job) -> None:
    reader = BoardReader(board)
    later = Job(Kept(), new_id())
    board.post(Cancellation(job_id=later.job_id))
    reader.read()
    assert not later.cancelled
    later.become_current()
    reader.read()
    later.restore_outer()
    assert later.cancelled
    assert not job.cancelled


def test_a_request_is_read_while_the_run_goes_on(board: NoticeBoard, job: Job) -> None:
    reader = BoardReader(board)
    reader.read()
    board.post(Cancellation(job_id=job.job_id))
    reader.read()
    assert job.cancelled


def test_a_reader_notices_that_requests_were_overwritten(board: NoticeBoard, job: Job) -> None:
    reader = BoardReader(board)
    assert not reader.read()
    board.post(Cancellation(job_id=job.job_id))
    for number in range(SLOTS):
        board.post(Cancellation(job_id=f"job-{number}"))
    assert reader.read()
    assert not job.cancelled
    board.post(Cancellation(job_id="another"))
    assert not reader.read()
