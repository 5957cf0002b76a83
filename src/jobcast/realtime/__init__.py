"""The server process: authenticates clients and sends them the events of their jobs."""

from jobcast.realtime.app import attach, client_manager, create_app
from jobcast.realtime.authentication import Identify
from jobcast.realtime.authorization import Rule
from jobcast.realtime.default_rule import default_rule
from jobcast.realtime.gateway import Gateway
from jobcast.tokens import Subject

__all__ = [
    "Gateway", "Identify", "Rule", "Subject", "attach", "client_manager", "create_app",
    "default_rule",
]  # fmt: skip
