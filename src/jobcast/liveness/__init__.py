"""Leases, through which jobs of lost workers end. Independent of Celery."""
