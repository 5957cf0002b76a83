"""Publish the events of jobs. Independent of Celery."""
