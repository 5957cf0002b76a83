"""The adapter to Celery: tasks, their hooks, and what a worker knows of their runs."""
