"""jobcast: live progress, logs and endings of Celery jobs over Socket.IO.

>>> from jobcast import ProgressTask
>>> @app.task(base=ProgressTask, bind=True)
... def convert(self, pages):
...     for page in self.track(pages):
...         ...
"""

from jobcast.worker.job import Job, current_job
from jobcast.worker.process import open_job
from jobcast.worker.task import ProgressTask

__all__ = ["Job", "ProgressTask", "current_job", "open_job"]
