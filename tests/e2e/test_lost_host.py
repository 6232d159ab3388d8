"""A host that loses its power says nothing. What it had locked is free soon, and who waits for it is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.hosts.fleet import FIXED, NET
from tests.hosts.host import Host, Network, disk, why_not
from tests.hosts.site import DATABASE_URL, Services

WHY_NOT = why_not()
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(200), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
#: Far above the 15 to 30 s that are promised, and far below the 15 minutes and 2 hours of Linux.
MOST_SECONDS = 100

CONNECTED = f"""
import sys, time
from sqlalchemy import text
from pipeline.errors import Transient
from storage.database import Database
database = Database("{DATABASE_URL}")
for _ in range(100):
    try:
        with database.write() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS things (number INTEGER)"))
        break
    except Transient:
        time.sleep(0.2)
"""
ADDS = (
    CONNECTED
    + """
with database.write() as connection:
    connection.execute(text("INSERT INTO things VALUES (1)"))
"""
)
LOCKS = (
    CONNECTED
    + """
with database.write() as connection:
    connection.execute(text("UPDATE things SET number = 2"))
    print("locked", flush=True)
    sys.stdin.read()
"""
)
CHANGES = (
    CONNECTED
    + f"""
with database.write() as connection:
    connection.execute(text("SET LOCAL lock_timeout = '{MOST_SECONDS}s'"))
    connection.execute(text("UPDATE things SET number = number + 10"))
with database.read() as connection:
    print(connection.scalar(text("SELECT number FROM things")))
"""
)
WAITS = (
    CONNECTED
    + """
try:
    with database.read() as connection:
        print("asks", flush=True)
        connection.execute(text("SELECT pg_sleep(1000)"))
except Transient:
    print("told", flush=True)
"""
)


@pytest.fixture
def boot(tmp_path) -> Iterator[Callable[[str, str], Host]]:
    """Makes hosts of one network."""
    with ExitStack() as stack:
        network = Network(tmp_path / "switch.log")
        stack.callback(network.close)

        def make(label: str, address: str) -> Host:
            its_disk = stack.enter_context(disk(tmp_path / label))
            host = Host(network, label, name=f"host-{label}", address=address, disk=its_disk)
            stack.callback(host.power_off)
            return host

        yield make


@pytest.fixture
def postgres(boot, tmp_path) -> Iterator[Host]:
    host = boot("postgres", FIXED["postgres"])
    service = Services({}).of("postgres")
    service.prepare(host)
    process = host.start(service.command, settings={}, log=tmp_path / "postgres.log")
    yield host
    host.power_off()
    process.wait()


def started(host: Host, script: str, says: str) -> subprocess.Popen[str]:
    process = host.open([sys.executable, "-c", script])
    assert process.stdout.readline() == says
    return process


def test_the_locks_of_a_lost_host_are_free_soon(boot, postgres):
    lost, other = boot("lost", f"{NET}.11"), boot("other", f"{NET}.12")
    other.run([sys.executable, "-c", ADDS])
    process = started(lost, LOCKS, "locked\n")
    lost.power_off()
    process.communicate()
    assert other.run([sys.executable, "-c", CHANGES]) == "11\n"


def test_who_waits_for_a_lost_database_is_told(boot, postgres):
    client = boot("client", f"{NET}.11")
    process = started(client, WAITS, "asks\n")
    postgres.power_off()
    said, _ = process.communicate(timeout=MOST_SECONDS)
    assert said == "told\n"
