FROM python:3.13-slim-trixie AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app
RUN python -m venv /opt/venv
COPY requirements.lock requirements-production.lock ./
# setuptools, which builds the last package, is pinned where the development packages are.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > requirements-build.lock \
    && pip install --no-deps --require-hashes -r requirements-production.lock -r requirements-build.lock
COPY pyproject.toml README.md ./
COPY api api
COPY cli cli
COPY config config
COPY deploy/s3_init.py deploy/s3_init.py
COPY pipeline pipeline
COPY storage storage
COPY workers workers
# The packages stay in this folder, as in a checkout. Compiled now: later nothing may be written here.
RUN pip install --no-deps --no-build-isolation -e . \
    && pip uninstall --yes setuptools pip \
    && rm requirements*.lock \
    && python -m compileall -q api cli config pipeline storage workers

FROM python:3.13-slim-trixie
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="extract-image" \
      org.opencontainers.image.description="Extracts what a prompt asks for from 1 to 3000 images a request, through a queue that loses nothing." \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
# /spool is for bodies and objects too large for memory: TMPDIR, on a volume. /data is for `serve` with all parts embedded.
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app \
    && install -d -o 10001 -g 10001 /spool /data /data/spool
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 PORT=8000 DATA_DIR=/data TMPDIR=/data/spool
WORKDIR /app
USER 10001:10001
EXPOSE 8000
# Of `serve` and `web`. Where another process runs, whoever runs it says how to see that it works: docker-compose.yml.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["extract-image"]
CMD ["serve"]
