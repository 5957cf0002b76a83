"""The Python client of a jobcast server. Needs ``jobcast[client]``."""

from jobcast.client.address import check_namespace, check_server_url
from jobcast.client.cancel_job import CancelResult
from jobcast.client.connection import ConnectionState, Token
from jobcast.client.feed import Feed
from jobcast.client.job_client import JobClient
from jobcast.feeds import FeedGone, JobSummary

__all__ = [
    "CancelResult", "ConnectionState", "Feed", "FeedGone", "JobClient", "JobSummary", "Token",
    "check_namespace", "check_server_url",
]  # fmt: skip
