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
# /spool is for bodies and objects too large for memory: TMPDIR, on a volume.
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app \
    && install -d -o 10001 -g 10001 /spool
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["extract-image"]
