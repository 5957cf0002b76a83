"""Leases: how jobs end whose worker is gone. Knows no Celery."""
