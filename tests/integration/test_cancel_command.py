"""``jobcast cancel``, and the key ``c`` of ``watch`` and ``top``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobcast.client.sync import JobClient, JobState
from jobcast.events import JobComplete, JobError, JobStatus
from tests.integration.test_watch import jobcast
from tests.support import SECRET, Process, Server, free_port, new_id, running
from tests.support.owner import Owner
from tests.support.pty_process import PtyProcess

Token = Callable[..., str]

CANCELLING_COOPERATIVE = "cancelling: the run ends where its task checks for the request"


def state_of(server: Server, token: str, job_id: str) -> JobState:
    with JobClient(server.url, token) as client:
        return client.state(job_id)


def cancelled(job_id: str, message: str = "Cancelled") -> JobError:
    return JobError(
        job_id=job_id, error="JobCancelled", message=message, reason="cancelled", by="ada"
    )


def test_each_job_has_a_line(server: Server, owner: Owner, token: Token) -> None:
    waiting, busy, done = new_id(), owner.start(), owner.start()
    terminated = owner.start(worker="w", terminates=True)
    owner.publish(JobStatus(job_id=waiting, status="queued"))
    owner.complete(done)
    result = jobcast(
        "cancel", waiting, busy, terminated, done, "--yes", "--message", "wrong file",
        "--url", server.url, JOBCAST_TOKEN=token(owner.name),
    )  # fmt: skip
    assert result.stdout.splitlines() == [
        f"{waiting}: cancelled",
        f"{busy}: {CANCELLING_COOPERATIVE}",
        f"{terminated}: cancelling: the worker terminates the run if it does not end by itself",
        f"{done}: has already ended",
    ]
    assert (result.returncode, result.stderr) == (0, "")
    state = state_of(server, token(owner.name), waiting)
    assert state.error is not None
    assert (state.error["message"], state.error["by"]) == ("wrong file", owner.name)


def test_refused_job_does_not_stop_the_others(server: Server, owner: Owner, token: Token) -> None:
    unknown, fixed, busy = new_id(), owner.start(cancellable=False), owner.start()
    result = jobcast(
        "cancel", unknown, fixed, busy, "--yes", "--url", server.url,
        JOBCAST_TOKEN=token(owner.name),
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stdout == f"{busy}: {CANCELLING_COOPERATIVE}\n"
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{unknown}: not cancelled: ")
    assert first.endswith("(job_not_found)")
    assert second.endswith("(not_cancellable)")


def test_without_a_token_the_user_of_the_machine_cancels(
    server: Server, owner: Owner, token: Token
) -> None:
    job_id = owner.start()
    result = jobcast("cancel", job_id, "--yes", "--url", server.url, JOBCAST_JWT_SECRET=SECRET)
    assert result.returncode == 0, result.stderr
    state = state_of(server, token(owner.name), job_id)
    assert state.cancellation is not None
    assert state.cancellation["by"] == getpass.getuser()


def test_wait_follows_running_jobs_to_their_ends(
    server: Server, owner: Owner, token: Token, tmp_path: Path
) -> None:
    first, second = owner.start(title="first"), owner.start(title="second")
    argv = [
        sys.executable, "-m", "jobcast.cli", "cancel", first, second, "--yes", "--wait",
        "--url", server.url,
    ]  # fmt: skip
    with running(Process(argv, tmp_path / "log", {"JOBCAST_TOKEN": token(owner.name)})) as process:
        process.expect(lambda: process.log.count("cancelling, by") == 2, "requests")
        owner.publish(cancelled(first, "wrong file"), JobComplete(job_id=second, result=1))
        assert process.popen.wait(60) == 0
    assert "⏹ cancelled, by ada wrong file" in process.log
    assert "✔ complete 1" in process.log


def test_question_needs_a_terminal_or_yes(server: Server, owner: Owner, token: Token) -> None:
    job_id = owner.start()
    env = {"JOBCAST_TOKEN": token(owner.name)}
    result = jobcast("cancel", job_id, "--url", server.url, **env)
    assert result.returncode == 2
    assert "confirm the request with --yes" in result.stderr
    argv = [sys.executable, "-m", "jobcast.cli", "cancel", job_id, "--url", server.url]
    for answer, code, status in (("n", 130, "started"), ("y", 0, "cancelling")):
        with PtyProcess(argv, env) as terminal:
            terminal.expect(lambda: f"Cancel job {job_id}?" in terminal.text, "question")
            terminal.send(f"{answer}\n")
            assert terminal.wait() == code
        assert state_of(server, token(owner.name), job_id).status == status


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a b"], "a job id has 1 to 128 characters"),
        (["a", "--message", "x" * 1001], "the limit is 1000 characters"),
        ([], "Missing argument"),
    ],
)
def test_wrong_arguments_are_reported(arguments: list[str], problem: str) -> None:
    result = jobcast("cancel", *arguments, "--yes", "--token", "x")
    assert result.returncode == 2
    assert problem in result.stderr


def test_unreachable_server_has_its_own_exit_code(token: Token) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = jobcast("cancel", "a", "--yes", "--url", url, JOBCAST_TOKEN=token())
    assert result.returncode == 2
    assert "(unreachable)" in result.stderr


def test_key_of_watch_cancels_the_job_after_a_question(
    server: Server, owner: Owner, token: Token
) -> None:
    job_id = owner.start(title="March")
    argv = [sys.executable, "-m", "jobcast.cli", "watch", job_id, "--url", server.url]
    with PtyProcess(argv, {"JOBCAST_TOKEN": token(owner.name)}) as terminal:
        terminal.expect(lambda: "c cancel" in terminal.text, "keys")
        terminal.expect(lambda: "March" in terminal.text, "job")
        terminal.send("c")
        terminal.expect(lambda: "Cancel March? y: yes" in terminal.text, "question")
        terminal.send("n")
        terminal.send("c")
        terminal.send("y")
        terminal.expect(lambda: f"March: {CANCELLING_COOPERATIVE}" in terminal.text, "answer")
        terminal.expect(lambda: "cancelling, by" in terminal.text, "event")
        owner.publish(cancelled(job_id))
        assert terminal.wait() == 1
        assert "⏹ cancelled, by ada" in terminal.text
        assert terminal.modes_are_restored()


def test_watch_in_a_pipe_reads_no_keys(server: Server, owner: Owner, token: Token) -> None:
    job_id = owner.start()
    owner.publish(cancelled(job_id))
    result = jobcast("watch", job_id, "--url", server.url, JOBCAST_TOKEN=token(owner.name))
    assert result.returncode == 1
    assert "⏹ cancelled, by ada Cancelled" in result.stdout


def test_key_of_top_cancels_the_selected_job_after_a_question(
    server: Server, owner: Owner, token: Token
) -> None:
    done = owner.start(age=60, title="alpha")
    fixed = owner.start(age=30, title="beta", cancellable=False)
    job_id = owner.start(title="gamma")
    owner.complete(done)
    argv = [sys.executable, "-m", "jobcast.cli", "top", "--url", server.url]

    def shows(text: str) -> None:
        terminal.expect(lambda: text in terminal.frame, f"list with {text}")

    with PtyProcess(argv, {"JOBCAST_TOKEN": token(owner.name)}) as terminal:
        shows(job_id)
        terminal.send("c")
        shows("Cancel gamma? y: yes, any other key: no")
        terminal.send("q")
        shows(job_id)
        assert state_of(server, token(owner.name), job_id).status == "started"
        terminal.send("cy")
        shows(f"gamma: {CANCELLING_COOPERATIVE}")
        shows("cancelling")
        owner.publish(cancelled(job_id))
        shows("1 cancelled")
        terminal.send("jc")
        shows("beta cannot be cancelled")
        terminal.send("jc")
        shows("alpha has already ended")
        terminal.send("k")
        shows(fixed)
        terminal.send("\r")
        terminal.expect(lambda: "▸ beta ━" in terminal.text, "followed job")
        terminal.send("c")
        terminal.expect(lambda: "no request can cancel this now" in terminal.text, "notice")
        terminal.send("\x1b")
        shows(fixed)
        terminal.send("q")
        assert terminal.wait() == 0
        assert terminal.modes_are_restored()
