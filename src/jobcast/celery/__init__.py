"""The adapter to Celery: tasks, their hooks, and the runs that a worker observes."""
