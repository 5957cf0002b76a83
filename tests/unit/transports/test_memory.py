"""The broker of the transport in memory."""

from __future__ import annotations

import logging
from threading import Thread

from jobcast.transports import Outgoing, Retention
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT


class Reader(logging.Handler):
    """A handler that reads a job in another thread, and notes whether the broker answers."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__()
        self.answered: list[bool] = []
        self._broker = broker

    def emit(self, record: logging.LogRecord) -> None:
        del record
        reading = Thread(target=self._broker.position, args=("7",), daemon=True)
        reading.start()
        reading.join(TIMEOUT)
        self.answered.append(not reading.is_alive())


def test_handler_of_a_warning_about_feeds_can_use_the_broker() -> None:
    broker = MemoryBroker(Retention())
    logger = logging.getLogger("jobcast")
    reader = Reader(broker)
    logger.addHandler(reader)
    try:
        broker.publish([Outgoing(job_id="7", kind="s", head="garbage", state="started")])
    finally:
        logger.removeHandler(reader)
    assert reader.answered == [True]
