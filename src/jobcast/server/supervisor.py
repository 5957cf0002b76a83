"""The supervisor of several server processes on one port."""

from __future__ import annotations

from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from jobcast.server.uvicorn_server import Server

# Maximum time for a worker to start or to answer the supervisor, in seconds. uvicorn's default of 5
# is too short for a loaded machine: restarts fail, and healthy workers are killed.
WORKER_TIMEOUT: Final = 30


class WorkerProcess(multiprocess.Process):
    """A worker under the supervisor, with jobcast's server in place of uvicorn's."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(self.config)
        return self._server


class Supervisor(Multiprocess):
    """uvicorn's supervisor, changed to notice immediately that a worker died during a health check.

    uvicorn keeps the worker's end of the health check pipe open, so the pipe does not close when
    the worker dies. The supervisor would wait for all of `WORKER_TIMEOUT`, and meanwhile neither
    replace workers nor handle signals.
    """

    def run(self) -> None:
        """Start the workers, and replace them until a signal arrives."""
        own = multiprocess.Process
        # uvicorn creates workers in several methods, and has no parameter for their class.
        multiprocess.Process = WorkerProcess  # type: ignore[misc]
        try:
            super().run()
        finally:
            multiprocess.Process = own  # type: ignore[misc]

    def keep_subprocess_alive(self) -> None:
        for worker in self.processes:
            worker.child_conn.close()
        super().keep_subprocess_alive()
