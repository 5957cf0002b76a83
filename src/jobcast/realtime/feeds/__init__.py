"""Feeds in the server process: lists of jobs that stay up to date on the clients' screens."""
