"""A Django project with a Celery worker, for tests of real processes."""
