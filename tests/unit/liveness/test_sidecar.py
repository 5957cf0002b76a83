"""The lease sidecar: its input, and the replacement of a broken process."""

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
    received = tmp_path / "received"
    ends_at_first = (
        f"import os, pathlib\nreceived = pathlib.Path({str(received)!r})\n"
        "if not received.exists():\n    received.touch()\nelse:\n"
        "    while data := os.read(0, 1000):\n"
        "        with received.open('ab') as file:\n            file.write(data)\n"
    )
    use_instead(monkeypatch, tmp_path, ends_at_first)
    leases = {lease_of(1), lease_of(2)}

    def has_received_all() -> bool:
        sidecar.update(leases)
        sidecar.renewed(time.monotonic())
        return received.exists() and all(f"+{lease}\n" in received.read_text() for lease in leases)

    wait_for(has_received_all, "another process that has received all leases")
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
    # More than the capacity of a pipe.
    leases = {lease_of(number) for number in range(10_000)}

    def is_replaced() -> bool:
        sidecar.update(leases)
        return "has not read its pipe" in caplog.text

    wait_for(is_replaced, "timeout of the full pipe")
    assert sidecar._pipe is None
    gate.touch()


def test_slow_sidecar_receives_only_current_leases(
    sidecar: LeaseSidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process may still be importing while many short jobs begin and end."""
    monkeypatch.setattr(sidecar, "_seconds", 3600)
    gate, received = tmp_path / "gate", tmp_path / "received"
    use_instead(
        monkeypatch, tmp_path,
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
        "while data := os.read(0, 65536):\n"
        f"    with open({str(received)!r}, 'ab') as file:\n        file.write(data)\n",
    )  # fmt: skip
    at_first = {lease_of(number) for number in range(5000)}
    sidecar.update(at_first)
    for number in range(10_000, 20_000):
        sidecar.update({lease_of(number)})
    gate.touch()

    def received_leases() -> set[str]:
        sidecar.update({lease_of(99_999)})
        orders = Orders()
        if received.exists():
            orders.take(received.read_bytes().partition(b"\n")[2])
        return orders.leases

    wait_for(lambda: received_leases() == {str(lease_of(99_999))}, "the only current lease")
    lines = received.read_text().splitlines()
    assert len(lines) == 1 + 2 * len(at_first) + 1
