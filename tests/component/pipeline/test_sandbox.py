"""A decoder and an OCR server that were taken over hold nothing: a picture runs its own code in them, as root if the tests do."""

from __future__ import annotations

import os
import platform
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import sandbox
from pipeline.decode.pool import DecoderPool
from pipeline.engines.ocr.engine import OcrEngine
from pipeline.sandbox import seccomp
from pipeline.types import Call, Form, ItemCode, Picture, Refused
from testbed import ROOT
from tests.fakes import picture_files

pytestmark = pytest.mark.skipif(bool(sandbox.missing()), reason=f"this system lacks {sandbox.missing()}")

GOOD = picture_files.native()["JPEG"]
X86 = platform.machine() == "x86_64"

#: What the code does, and the code. Every one is harmless, and succeeds in a process without a sandbox.
ATTEMPTS = {
    "reads the database": "sqlite3.connect('file:{folder}/service.db?mode=ro', uri=True).execute('select * from t')",
    "reads the secret key": "open('{folder}/secret_key').read()",
    "reads what lies beside the code": "open('{root}/pyproject.toml').read()",
    "lists a folder": "os.listdir('{folder}')",
    "reads another process's environment": "open('/proc/{other}/environ').read()",
    "reads another process's memory": "os.open('/proc/{other}/mem', os.O_RDONLY)",
    "reads its own environment": "open('/proc/self/environ').read()",
    "writes a file": "os.open('{folder}/secret_key', os.O_WRONLY)",
    "makes a file": "os.open('{folder}/made', os.O_CREAT | os.O_RDONLY)",
    "cuts a file": "os.truncate('{folder}/spare', 0)",
    "deletes a file": "os.unlink('{folder}/spare')",
    "moves a file": "os.rename('{folder}/spare', '{folder}/spare2')",
    "links a file": "os.link('{folder}/secret_key', '{folder}/linked')",
    "makes a folder": "os.mkdir('{folder}/folder')",
    "changes who may read a file": "os.chmod('{folder}/secret_key', 0o600)",
    "sets the time of a file": "os.utime('{folder}/secret_key')",
    "connects to loopback": "socket.create_connection(('127.0.0.1', {port}))",
    "connects to Redis's socket": "socket.socket(socket.AF_UNIX).connect('{folder}/redis.sock')",
    "connects to an abstract socket": "socket.socket(socket.AF_UNIX).connect(chr(0) + '{abstract}')",
    "listens": "socket.create_server(('127.0.0.1', 0))",
    "makes a datagram socket": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "signals another process": "os.kill({other}, 0)",
    "signals its parent": "os.kill(os.getppid(), 0)",
    "signals its group": "os.killpg(0, 0)",
    "gets a handle of another process": "os.pidfd_open({other})",
    "limits another process": "resource.prlimit({other}, resource.RLIMIT_NOFILE)",
    "slows another process down": "os.setpriority(os.PRIO_PROCESS, {other}, os.getpriority(os.PRIO_PROCESS, {other}))",
    "has the kernel signal another process": "fcntl.fcntl(1, fcntl.F_SETOWN, {other})",
    "starts a program": "subprocess.run(['/bin/true'], check=True)",
    "becomes a program": "os.fork() or os.execv('/bin/true', ['true'])",
    "forks": "os.fork() or os._exit(0)",
    "makes a file in memory, which it could execute": "os.memfd_create('x')",
    "leaves its process group": "os.setpgid(0, 0)",
    "reads another process's arguments": "open('/proc/{other}/cmdline').read()",
    "learns another process's program": "os.readlink('/proc/{other}/exe')",
    "learns another process's priority": "os.getpriority(os.PRIO_PROCESS, {other})",
    "moves another process to other cores": "os.sched_setaffinity({other}, os.sched_getaffinity({other}))",
    "opens a path without reading it": "os.open('/proc/{other}/root', os.O_PATH)",
    "makes a pair of sockets": "socket.socketpair()",
    "locks a library's file": "fcntl.flock(open(os.__file__), fcntl.LOCK_SH | fcntl.LOCK_NB)",
    "moves memory between a file and a pipe": "os.splice(os.open(os.__file__, os.O_RDONLY), os.pipe()[1], 1)",
    "copies between files in the kernel": "os.sendfile(os.pipe()[1], os.open(os.__file__, os.O_RDONLY), 0, 1)",
    "changes its folder": "os.chdir('.')",
}
#: The same by numbers, on x86_64. Most of these need rights that the tests may lack, so they are tried in the sandbox only.
BY_NUMBER = {
    "traces another process": "syscall(101, 16, {other}, 0, 0)",
    "reads another process's memory at once": "syscall(310, {other}, 0, 0, 0, 0, 0)",
    "makes namespaces": "syscall(272, 0x10000000)",
    "makes namespaces with a new process": "syscall(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "makes namespaces with a new thread": "syscall(56, 0x10000000 | 0x10000, 0, 0, 0, 0)",
    "asks the kernel to work for it by another way": "syscall(425, 1, 0)",
    "loads a program into the kernel": "syscall(321, 0, 0, 0)",
    "shares memory": "syscall(29, 0, 4096, 0o1600)",
    "watches files": "syscall(294, 0)",
    "mounts": "syscall(165, 0, 0, 0, 0, 0)",
    "writes another process's memory at once": "syscall(311, {other}, 0, 0, 0, 0, 0)",
    "signals every process": "os.kill(-1, 0)",
    "signals another process's thread": "syscall(200, {other}, 0)",
    "signals another process with a value": "syscall(129, {other}, 0, 0)",
    "signals by a handle": "syscall(424, 0, 0, 0, 0)",
    "takes an open file of another process": "syscall(438, 0, 0, 0)",
    "compares itself with another process": "syscall(312, {other}, {other}, 0, 0, 0)",
    "learns where another process keeps its locks": "syscall(274, {other}, 0, 0)",
    "shares a core with another process alone": "syscall(157, 62, 1, {other}, 1, 0)",
    "lets other processes look into it": "syscall(157, 4, 1, 0, 0, 0)",
    "joins a namespace": "syscall(308, 0, 0)",
    "becomes a file that it has open": "syscall(322, 3, 0, 0, 0, 0x1000)",
    "handles faults of memory itself": "syscall(323, 0)",
    "counts events of the processor": "syscall(298, 0, 0, -1, -1, 0)",
    "makes a key": "syscall(248, 0, 0, 0, 0, 0)",
    "reads keys": "syscall(250, 0, -3, 0, 0, 0)",
    "opens a file system": "syscall(430, 0, 0)",
    "clones a mount": "syscall(428, -100, 0, 0)",
    "opens a file by its number": "syscall(304, -100, 0, 0)",
    "makes a queue of messages": "syscall(240, 0, 0, 0, 0)",
    "makes a queue of messages of the old kind": "syscall(68, 0, 0o1600)",
    "makes the machine write everything to its disks": "syscall(162)",
    "changes attributes of a library's file": "fcntl.ioctl(open(os.__file__), 0x40086602, bytes(8))",
    "has others wait for a library's file": "fcntl.fcntl(open(os.__file__), 1024, fcntl.F_RDLCK)",
    "types into a terminal": "fcntl.ioctl(0, 0x5412, b'x')",
    "controls a device": "fcntl.ioctl(open('/dev/urandom'), 0x5204, bytes(8))",
    "loads another filter": "syscall(317, 1, 0, 0)",
    "reads attributes of a file": "syscall(191, 0, 0, 0, 0)",
    "reaches the address of a cloud's keys": "socket.create_connection(('169.254.169.254', 80), 1)",
}
UNSEEN = {
    "forks by a call whose arguments the filter can't read": "syscall(435, 0, 0)",
    "opens a file by such a call": "syscall(437, -100, 0, 0, 0)",
    "makes a call that is newer than the filter": "syscall(452, 0, 0, 0, 0)",
    "makes a call of the x32 machine": "syscall(0x40000000 + 41, 2, 1, 0)",
}
#: `mov eax, 20; int 0x80; ret`: asks for its process's id as a 32-bit program does.
CALL_OF_32_BITS = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex('b814000000cd80c3'))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    """The values for the braces in the code: what a taken-over process would like to reach."""
    folder = tmp_path_factory.mktemp("victims")
    with sqlite3.connect(folder / "service.db") as database:
        database.execute("create table t (secret)")
    database.close()
    (folder / "secret_key").write_text("secret")
    abstract = f"extract-image-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.socket(socket.AF_UNIX) as redis,
        socket.socket(socket.AF_UNIX) as other_redis,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
    ):
        redis.bind(str(folder / "redis.sock"))
        redis.listen()
        other_redis.bind("\0" + abstract)
        other_redis.listen()
        yield {"folder": folder, "port": web.getsockname()[1], "abstract": abstract, "other": other.pid, "root": ROOT}
        other.communicate(b"\n")


@pytest.fixture(autouse=True)
def files(victims):
    """The files as they were before the attempts."""
    for name in ("made", "spare2", "linked"):
        (victims["folder"] / name).unlink(missing_ok=True)
    if (victims["folder"] / "folder").exists():
        (victims["folder"] / "folder").rmdir()
    (victims["folder"] / "spare").write_text("x")


@pytest.fixture(scope="module")
def decoder():
    with DecoderPool(1, command=(sys.executable, "-m", "tests.fakes.hooked_decode_child")) as pool:
        yield lambda code: outcome_of(pool, code)


@pytest.fixture(scope="module")
def unsandboxed():
    with DecoderPool(1, command=(sys.executable, "-m", "tests.fakes.unsandboxed_decode_child")) as pool:
        yield lambda code: outcome_of(pool, code)


@pytest.fixture(scope="module")
def ocr(tmp_path_factory):
    engine = OcrEngine(tmp_path_factory.mktemp("ocr"), grace=0.5, server="tests.fakes.hooked_ocr_server")

    def outcome(code):
        pictures = (Picture(number=1, mime="image/png", data=code.encode()),)
        return engine.ask(Call(prompt="", form=Form.TEXT, json_mode=False, pictures=pictures, timeout=20)).detail

    yield outcome
    engine.close()


def outcome_of(pool, code):
    [outcome] = pool([GOOD + b"!run " + code.encode()])
    assert isinstance(outcome, Refused)
    return outcome.code if outcome.code is ItemCode.IMAGE_CRASHED_DECODER else outcome.detail


@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_decoder_that_was_taken_over_is_refused_what_a_process_without_a_sandbox_may_do(what, decoder, unsandboxed, victims):
    code = ATTEMPTS[what].format(**victims)
    assert decoder(code) in {"EACCES", "EPERM"} or "unable to open database" in decoder(code)
    assert unsandboxed(code) == "done"


@pytest.mark.parametrize("what", ATTEMPTS)
def test_an_ocr_server_that_was_taken_over_is_refused_the_same(what, ocr, victims):
    assert ocr(code := ATTEMPTS[what].format(**victims)) in {"EACCES", "EPERM"} or "unable to open database" in ocr(code)


@pytest.mark.skipif(not X86, reason="the numbers are those of x86_64")
@pytest.mark.parametrize("taken_over", ["decoder", "ocr"])
def test_calls_by_number_are_refused_too_and_those_that_cannot_be_read_do_not_exist(taken_over, request, victims):
    run = request.getfixturevalue(taken_over)
    assert {what: run(code.format(**victims)) for what, code in BY_NUMBER.items()} == dict.fromkeys(BY_NUMBER, "EPERM")
    assert {what: run(code) for what, code in UNSEEN.items()} == dict.fromkeys(UNSEEN, "ENOSYS")


@pytest.mark.parametrize("taken_over", ["decoder", "ocr"])
def test_a_process_in_the_sandbox_can_still_start_threads_and_read_its_libraries(taken_over, request):
    run = request.getfixturevalue(taken_over)
    assert run("thread = threading.Thread(target=print); thread.start(); thread.join()") == "done"
    assert run("import encodings.cp1252, os; open(os.__file__).read(); open('/dev/urandom', 'rb').read(1)") == "done"
    assert run("resource.setrlimit(resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU))") == "done"


@pytest.mark.parametrize("taken_over", ["decoder", "ocr"])
def test_a_process_in_the_sandbox_cannot_use_up_the_machines_process_numbers_or_its_disk(taken_over, request):
    run = request.getfixturevalue(taken_over)
    tasks = int(Path("/proc/loadavg").read_text("ascii").split()[3].split("/")[1])
    assert run(f"assert resource.getrlimit(resource.RLIMIT_NPROC)[1] < {tasks + 10_000}") == "done"
    assert run("resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, 2**31))").startswith("ValueError: not allowed to raise")


def test_an_ocr_server_that_was_taken_over_cannot_write_without_end_into_its_log_and_its_lock(ocr):
    written = [ocr(f"assert {stat.S_IFREG} & os.fstat({file}).st_mode; os.pwrite({file}, b'x', 2**30)") for file in range(1, 64)]
    assert written.count("EFBIG") == 3  # standard output and standard error, which are the log, and the lock
    assert "done" not in written


@pytest.mark.skipif(not X86, reason="the code is that of x86_64")
def test_a_decoder_that_makes_a_call_of_32_bit_programs_dies(decoder):
    assert decoder(CALL_OF_32_BITS) is ItemCode.IMAGE_CRASHED_DECODER


@pytest.mark.parametrize("column", [0, 1])
def test_no_system_call_is_in_the_table_twice_and_none_is_newer_than_the_newest(column):
    calls = seccomp.allowed_calls(column)
    assert len(calls) == len(set(calls.values()))
    assert max(calls.values()) <= 450
    assert not {"socket", "connect", "ptrace", "execve", "unlinkat", "io_uring_setup", "openat", "clone", "kill"} & set(calls)
