# One image for the API, the workers and the migrations: `souk` with the command line's arguments.

FROM python:3.13-slim AS build
WORKDIR /src
# Everything is downloaded under the lock file's hashes; what follows takes from these files and asks no index.
COPY requirements.lock ./
RUN pip download --no-cache-dir --only-binary :all: --require-hashes --dest /wheels -r requirements.lock
RUN python -m venv /opt/souk \
    && /opt/souk/bin/pip install --no-cache-dir --no-index --find-links /wheels setuptools
COPY LICENSE README.md pyproject.toml souk.py ./
COPY api api
COPY client client
COPY commands commands
COPY loadtest loadtest
COPY storage storage
COPY workers workers
RUN /opt/souk/bin/pip install --no-cache-dir --no-index --find-links /wheels --no-build-isolation . ./client

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin souk
COPY --from=build /opt/souk /opt/souk
COPY deploy/worker_alive.py /opt/souk/deploy/
ENV PATH=/opt/souk/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
ENTRYPOINT ["souk"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]
