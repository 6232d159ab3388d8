# Debian's own PgBouncer, because the project has no image of its own.
FROM debian:13.1-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends pgbouncer \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10002 pooler \
    && useradd --uid 10002 --gid 10002 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pooler
USER 10002:10002
