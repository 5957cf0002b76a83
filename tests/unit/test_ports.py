from __future__ import annotations

import socket
import subprocess
import sys

from tests.support import ROOT, ports

TRY_PORT = "import sys; from tests.support import ports; print(ports._reserve(int(sys.argv[1])))"


def reserved_by_another_process(port: int) -> bool:
    argv = [sys.executable, "-c", TRY_PORT, str(port)]
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return answer.strip() == "False"


def test_a_port_is_reserved_before_its_server_binds_it() -> None:
    port = ports.free_port()
    assert reserved_by_another_process(port)
    assert not ports._reserve(port)


def test_a_port_in_use_is_not_free() -> None:
    port = ports.free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        assert not ports._is_free(port)
