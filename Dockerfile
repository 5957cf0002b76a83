# syntax=docker/dockerfile:1
#
#   docker build --target worker .
#   docker build --target realtime .

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/venv/bin:$PATH
RUN groupadd --gid 10001 app && useradd --uid 10001 --gid app --create-home app
WORKDIR /app

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv

# In a checkout of jobcast it is built from there; in any other project it comes from PyPI.
FROM build AS wheels
WORKDIR /src
COPY . .
RUN mkdir /wheels && if [ -d src/jobcast ]; then pip wheel --no-deps --wheel-dir /wheels .; fi

FROM build AS worker-packages
COPY --from=wheels /wheels /wheels
COPY worker/requirements.txt .
RUN /venv/bin/pip install $(find /wheels -name '*.whl') -r requirements.txt

FROM build AS realtime-packages
COPY --from=wheels /wheels /wheels
COPY realtime/requirements.txt .
RUN /venv/bin/pip install $(find /wheels -name '*.whl') -r requirements.txt

FROM base AS worker
COPY --from=worker-packages /venv /venv
COPY tasks tasks
COPY worker worker
USER 10001:10001
CMD ["celery", "-A", "worker.app", "worker", "--loglevel=info", "--concurrency=2"]

FROM base AS realtime
COPY --from=realtime-packages /venv /venv
COPY realtime realtime
USER 10001:10001
ENV JOBCAST_HOST=0.0.0.0
EXPOSE 8000
CMD ["jobcast", "serve", "realtime.app:app"]
