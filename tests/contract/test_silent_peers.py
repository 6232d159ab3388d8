"""A host that has lost its power or its network says nothing. What waits for it gives up soon, on both sides."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from pipeline.errors import Transient
from storage.database import Database
from storage.redis.signals import Signals, celery_app
from storage.silent_peers import IDLE_SECONDS, IDLE_TRANSACTION_SECONDS, LIBPQ, UNACKNOWLEDGED_SECONDS, tcp_options
from testbed import eventually, valkey

SESSIONS = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
LINUX = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")


@pytest.fixture
def on_postgres(postgres_server):
    with postgres_server.database() as url:
        database = Database(url)
        yield database
        database.close()


def test_postgres_ends_a_transaction_whose_client_is_silent(on_postgres):
    """Otherwise it would keep the locks of a lost host for two hours."""
    with on_postgres.read() as connection:
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == f"{IDLE_TRANSACTION_SECONDS}s"
    with pytest.raises(ZeroDivisionError), on_postgres.write() as connection:
        raise ZeroDivisionError
    with on_postgres.write() as connection:  # a rollback leaves it as it is
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == f"{IDLE_TRANSACTION_SECONDS}s"


def test_a_transaction_that_postgres_has_ended_may_be_tried_again(on_postgres):

    def stand_still():
        with on_postgres.write() as connection, on_postgres.read() as other:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
            eventually(lambda: not other.scalar(SESSIONS, {"pid": pid}))
            connection.execute(text("SELECT 1"))

    with pytest.raises(Transient):
        stand_still()
    with on_postgres.write() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_a_silent_postgres_is_given_up(on_postgres):
    with on_postgres.read() as connection:
        given = connection.connection.driver_connection.info.get_parameters()
    assert {name: given[name] for name in LIBPQ} == {name: str(value) for name, value in LIBPQ.items()}


def test_the_url_goes_before(postgres_server):
    with postgres_server.database() as url:
        database = Database(make_url(url).update_query_dict({"connect_timeout": "3"}).render_as_string(hide_password=False))
        with database.read() as connection:
            given = connection.connection.driver_connection.info.get_parameters()
        database.close()
    assert given["connect_timeout"] == "3"
    assert given["keepalives_idle"] == str(IDLE_SECONDS)


@LINUX
def test_a_silent_redis_is_given_up(tmp_path: Path):
    """Both by the clients that send, and by the one from which a worker takes its messages: it only waits, for ever."""
    with valkey(tmp_path) as url:
        signals, app = Signals(url), celery_app(url)
        pools = [signals.redis.connection_pool, signals._sending.connection_pool, signals._counts.connection_pool]
        with app.connection_for_read() as connection:
            pools += [connection.default_channel.pool, connection.default_channel.async_pool]
            for pool in pools:
                taken = pool.get_connection()
                taken.connect()
                has = {option: taken._sock.getsockopt(socket.IPPROTO_TCP, option) for option in tcp_options()}
                assert has == tcp_options()
                assert taken._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                pool.release(taken)
        signals.close()
        app.close()
    assert tcp_options()[socket.TCP_USER_TIMEOUT] == UNACKNOWLEDGED_SECONDS * 1000
