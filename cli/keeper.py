"""Keeps the processes of `extract-image serve` running, and ends them. It imports only a few modules of the standard library.

`serve` prepares and starts everything. Then nothing is left but waiting, for which its modules would take 60 MB. So it replaces itself
by this file: an exec keeps the process id, the children, the locks and the open files. See docs/adr/0060.
"""

import marshal
import os
import select
import signal
import subprocess
import sys
import time

FAST_DEATHS = 5  #: serve gives up after one child has died this often, each time within a minute of its start
END_SECONDS = 30  #: for running steps to end; then the worker is killed, and the next worker runs its steps
REDIS_SECONDS = 10  #: for the embedded Redis to end, after the processes that use it
REVIVE_SECONDS = 1.0  #: the embedded Redis is started at most this often, for as long as it takes

ENDED = "process_ended"  #: the event of a child that ended by itself, at the level error

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Kept:
    """A child process that is started again when it ends by itself.

    `command` and `environment` are bytes, so that they stay what they are under every locale. The child inherits `descriptor`. With
    `lifeline` it reads from a pipe that this process holds open, and ends when the pipe closes: the embedded Redis.
    """

    def __init__(
        self, role: str, command: list[bytes], environment: dict[bytes, bytes], descriptor: int = -1, *, lifeline: bool = False
    ) -> None:
        self.role = role
        self.command = command
        self.environment = environment
        self.descriptor = descriptor
        self.lifeline = lifeline
        self.pipe = -1  #: the end of the lifeline that this process holds
        self.pid = 0
        self.started = 0.0  #: by time.monotonic(), which an exec does not set back
        self.fast_deaths = 0
        self.code: int | None = None  #: with which it has ended; None: it runs

    def start(self) -> None:
        stdin = None
        if self.lifeline:
            stdin, self.pipe = os.pipe()
        # The child gets its own session, so that Ctrl-C reaches only `serve`, which then ends the children.
        process = subprocess.Popen(
            self.command,
            env=self.environment,
            pass_fds=(self.descriptor,) if self.descriptor >= 0 else (),
            stdin=stdin,
            start_new_session=True,
        )
        process.returncode = 0  # `poll` waits for it by its id, because no Popen survives an exec
        self.pid = process.pid
        self.code = None
        self.started = time.monotonic()
        if stdin is not None:
            os.close(stdin)

    def poll(self) -> int | None:
        """The code with which the process has ended, or None while it runs."""
        if self.code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if pid else None
            except ChildProcessError:  # somebody else has waited for it
                self.code = 0
        return self.code

    def end(self) -> None:
        """Asks the process to end."""
        if self.lifeline:
            self.cut()
        else:
            self.kill(signal.SIGTERM)

    def cut(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def restart(self) -> None:
        self.fast_deaths = self.fast_deaths + 1 if time.monotonic() - self.started < 60 else 1
        self.cut()
        self.start()


class Stop:
    """Receives SIGINT and SIGTERM, and wakes up `wait` for them and for children that end. It must be made in the main thread."""

    def __init__(self) -> None:
        self.received = False
        self._woken, writer = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _STOPPING:
            signal.signal(number, self._stop)

    def _stop(self, _number: int, _frame: object) -> None:
        self.received = True

    def wait(self, seconds: float | None = None) -> None:
        """Returns after a signal or `seconds`."""
        if select.select([self._woken], [], [], seconds)[0]:
            os.read(self._woken, 4096)


class State:
    """What the process needs to keep its children. `form`: json or text, of the lines in its log."""

    def __init__(self, children: list[Kept], form: str) -> None:
        self.children = children
        self.form = form

    def log_death(self, child: Kept) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
        if self.form == "json":
            line = (
                f'{{"role": "{child.role}", "code": {child.code}, "event": "{ENDED}", "logger": "cli.serve", '
                f'"level": "error", "timestamp": "{stamp}"}}'
            )
        else:
            line = f"{stamp} [error    ] {ENDED:<30} [cli.serve] code={child.code} role={child.role}"
        try:
            os.write(2, f"{line}\n".encode())
        except OSError:
            return  # the reader of the log is gone, which must not end the service

    def watch(self, stop: Stop) -> int:
        """Starts every child again that ends, until SIGINT or SIGTERM. Returns the exit code: 1 if a child keeps dying."""
        while not stop.received:
            seconds = None
            for child in self.children:
                if child.poll() is None:
                    continue
                if child.lifeline:
                    rest = child.started + REVIVE_SECONDS - time.monotonic()
                    if rest > 0:
                        seconds = rest
                        continue
                self.log_death(child)
                if child.fast_deaths >= FAST_DEATHS and not child.lifeline:
                    return 1
                child.restart()
            stop.wait(seconds)
        return 0

    def end(self, stop: Stop) -> None:
        """Ends all processes, and those with a lifeline after the others, which use them. Kills every one that does not end in time."""
        _end([child for child in self.children if not child.lifeline], END_SECONDS, stop)
        _end([child for child in self.children if child.lifeline], REDIS_SECONDS, stop)

    def packed(self) -> bytes:
        return marshal.dumps((self.form, [vars(child) for child in self.children]))

    @classmethod
    def unpacked(cls, data: bytes) -> "State":
        form, children = marshal.loads(data)  # noqa: S302 - `serve` itself has written it
        state = cls([], form)
        for values in children:
            child = Kept.__new__(Kept)
            vars(child).update(values)
            state.children.append(child)
        return state

    def become_small(self, stop: Stop, keep_open: list[int]) -> None:
        """Replaces this process by one that runs only this file. Returns if that can't be done: then this process goes on itself.

        `keep_open`: the descriptors that the service needs for as long as it runs, such as its lock. The state goes through a pipe,
        because it holds secrets, which others could read from a command line or an environment.
        """
        command = [sys.executable, "-I", "-S", os.path.abspath(__file__)]  # noqa: PTH100 - without pathlib's memory
        # Some Pythons find their library by such a variable.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
        try:
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=10)  # whether it starts at all
        except (OSError, subprocess.SubprocessError):
            return
        reader, writer = os.pipe()
        kept = [reader, *keep_open, *(child.pipe for child in self.children if child.pipe >= 0)]
        kept += [child.descriptor for child in self.children if child.descriptor >= 0]
        inheritable = {number: os.get_inheritable(number) for number in kept}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal that comes now waits for the new process
        try:
            if stop.received:
                return
            data = self.packed()
            os.set_blocking(writer, False)
            if os.write(writer, data) < len(data):
                return  # more than a pipe holds
            os.close(writer)
            writer = -1
            for number in kept:
                os.set_inheritable(number, True)  # noqa: FBT003
            name = "extract-image serve"  # for people who look for it in a list of processes
            os.execve(command[0], [*command, str(reader), name], environment)  # noqa: S606 - without a shell
        except OSError:
            return
        finally:  # only if there was no exec
            for number, was in inheritable.items():
                os.set_inheritable(number, was)
            for number in (reader, writer):
                if number >= 0:
                    os.close(number)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(children: list[Kept], seconds: float, stop: Stop) -> None:
    deadline = time.monotonic() + seconds
    running = [child for child in children if child.pid]
    for child in running:
        child.end()
    while any(child.poll() is None for child in running):
        rest = deadline - time.monotonic()
        if rest <= 0:
            for child in running:
                child.kill()
            deadline = time.monotonic() + 1
        stop.wait(max(rest, 0.1))


def _make_private() -> None:
    """What `serve` did before the exec, which undoes it: see pipeline/hardening.py."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _reap(state: State) -> None:
    """Waits for children that `serve` left behind, such as a check that was cut short, so that none stays as a zombie."""
    kept = {child.pid: child for child in state.children}
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid in kept:
                kept[pid].code = os.waitstatus_to_exitcode(status)
    except ChildProcessError:
        return


class _StopAndReap(Stop):
    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def wait(self, seconds: float | None = None) -> None:
        super().wait(seconds)
        _reap(self._state)


def main(reader: int) -> int:
    """Goes on where `State.become_small` ended."""
    _make_private()
    with open(reader, "rb") as pipe:
        state = State.unpacked(pipe.read())
    stop = _StopAndReap(state)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # before a child starts, because it would inherit the mask
    try:
        return state.watch(stop)
    finally:
        state.end(stop)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(int(sys.argv[1])))
