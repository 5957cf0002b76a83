"""What a process needs to publish the events of jobs. Knows no Celery."""
