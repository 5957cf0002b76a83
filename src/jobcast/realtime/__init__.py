"""The Socket.IO process: authenticates clients and sends them the events of their jobs."""

from jobcast.realtime.app import attach, client_manager, create_app
from jobcast.realtime.authorization import Rule
from jobcast.realtime.gateway import Gateway
from jobcast.tokens import Subject

__all__ = ["Gateway", "Rule", "Subject", "attach", "client_manager", "create_app"]
