"""The real servers that tests start share no file with those of another user of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.postgres import wheel_of_postgres
from testbed.seaweedfs import ADMIN_GRPC, _free_ports, _grpc_sockets


def test_the_lock_file_of_postgres_lies_in_a_folder_of_this_user_alone():
    before = os.environ.get("XDG_RUNTIME_DIR")
    runtime = wheel_of_postgres().PostgresServer.lock_path.parent.stat()
    assert (runtime.st_uid, runtime.st_mode & 0o777) == (os.getuid(), 0o700)
    assert os.environ.get("XDG_RUNTIME_DIR") == before


@pytest.mark.parametrize("away", [0, ADMIN_GRPC])
def test_seaweedfs_gets_no_port_whose_socket_another_seaweedfs_has_left(away):
    [port] = _free_ports(1, beside=ADMIN_GRPC)
    left: Path = next(_grpc_sockets(port + away))
    left.touch(exist_ok=False)
    try:
        with pytest.raises(RuntimeError, match="too few free ports"):
            _free_ports(1, beside=ADMIN_GRPC, ports=range(port, port + 1))
    finally:
        left.unlink()
