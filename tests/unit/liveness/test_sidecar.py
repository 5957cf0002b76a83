"""The process that keeps jobs alive: what it is told, and what becomes of one that is no good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobcast.liveness import sidecar_main
from jobcast.liveness.sidecar import LeaseSidecar
from jobcast.liveness.sidecar_main import Orders
from jobcast.transports import Run
from jobcast.transports.leases import Lease
from tests.support import wait_for


def lease_of(number: int) -> Lease:
    return Lease(str(number), Run(sending="s", attempt=1, delivery=f"{number:012}"))


@pytest.fixture
def sidecar() -> Iterator[LeaseSidecar]:
    sidecar = LeaseSidecar("memory://", seconds=0.01)
    yield sidecar
    pid = sidecar._pid
    sidecar.close()
    if pid and psutil.pid_exists(pid):
        psutil.Process(pid).wait()


def test_orders_are_parsed_from_arbitrary_chunks() -> None:
    orders = Orders()
    for byte in b"+a 1\n+b 2\n=10.5\n-a 1\n=11.0\n+c":
        orders.take(bytes([byte]))
    assert (orders.leases, orders.renewed_at) == ({"b 2"}, 11.0)
    orders.take(b" 3\n-b 2\n=12.0\n")
    assert (orders.leases, orders.renewed_at) == ({"c 3"}, 12.0)


def test_no_process_starts_without_leases(sidecar: LeaseSidecar) -> None:
    sidecar.update(set())
    assert sidecar._pid == 0


def use_instead(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    script = folder / "script.py"
    script.write_text(code)
    monkeypatch.setattr(sidecar_main, "__file__", str(script))


def test_ended_sidecar_is_replaced_and_receives_all_leases(
    sidecar: LeaseSidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    heard = tmp_path / "heard"
    ends_at_first = (
        f"import os, pathlib\nheard = pathlib.Path({str(heard)!r})\n"
        "if not heard.exists():\n    heard.touch()\nelse:\n"
        "    while data := os.read(0, 1000):\n"
        "        with heard.open('ab') as file:\n            file.write(data)\n"
    )
    use_instead(monkeypatch, tmp_path, ends_at_first)
    leases = {lease_of(1), lease_of(2)}

    def told() -> bool:
        sidecar.update(leases)
        sidecar.renewed(time.monotonic())
        return heard.exists() and all(f"+{lease}\n" in heard.read_text() for lease in leases)

    wait_for(told, "another process, and what it has heard")
    assert caplog.text.count("has ended; replacing it") == 1


def test_sidecar_that_does_not_read_is_replaced(
    sidecar: LeaseSidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    gate = tmp_path / "gate"
    use_instead(
        monkeypatch, tmp_path,
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n",
    )  # fmt: skip
    # More than a pipe holds.
    leases = {lease_of(number) for number in range(10_000)}

    def left() -> bool:
        sidecar.update(leases)
        return "has not read its pipe" in caplog.text

    wait_for(left, "end of patience")
    assert sidecar._pipe is None
    gate.touch()


def test_slow_sidecar_receives_only_current_leases(
    sidecar: LeaseSidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be importing while many a short job comes and goes."""
    monkeypatch.setattr(sidecar, "_seconds", 3600)
    gate, heard = tmp_path / "gate", tmp_path / "heard"
    use_instead(
        monkeypatch, tmp_path,
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
        "while data := os.read(0, 65536):\n"
        f"    with open({str(heard)!r}, 'ab') as file:\n        file.write(data)\n",
    )  # fmt: skip
    at_first = {lease_of(number) for number in range(5000)}
    sidecar.update(at_first)
    for number in range(10_000, 20_000):
        sidecar.update({lease_of(number)})
    gate.touch()

    def told() -> set[str]:
        sidecar.update({lease_of(99_999)})
        orders = Orders()
        if heard.exists():
            orders.take(heard.read_bytes().partition(b"\n")[2])
        return orders.leases

    wait_for(lambda: told() == {str(lease_of(99_999))}, "news of the one that is left")
    lines = heard.read_text().splitlines()
    assert len(lines) == 1 + 2 * len(at_first) + 1
