"""The supervisor of several server processes on one port."""

from __future__ import annotations

from typing import Final

from uvicorn.supervisors import Multiprocess

# Seconds that a worker may take to start, or to answer the supervisor. A loaded machine needs more
# than uvicorn's 5: a restart would be given up, and a worker that lives be killed with its clients.
WORKER_TIMEOUT: Final = 30


class Supervisor(Multiprocess):
    """uvicorn's, which sees at once that a worker died which it was just asking for a sign of life.

    uvicorn keeps the worker's end of their pipe open, so that the pipe did not end with the worker:
    for all of `WORKER_TIMEOUT` nobody was replaced and no signal heard.
    """

    def keep_subprocess_alive(self) -> None:
        for worker in self.processes:
            worker.child_conn.close()
        super().keep_subprocess_alive()
