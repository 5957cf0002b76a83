"""Process 1: the Celery worker."""
