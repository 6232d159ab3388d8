"""Runs the stages in their order: scan, check, price, send and follow, write."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cli.client import ApiError, Client
from cli.connection import Service, state_home
from cli.exits import CommandFault, Exit, client_faults
from cli.run import ending
from cli.run.check import Checked, check, check_engine
from cli.run.earlier import EMBEDDED, Restart, drop_gone, forget_gone
from cli.run.embedded import Embedded, embedded, forget, what_reads
from cli.run.follow import Board
from cli.run.gather import gather
from cli.run.options import Options, digest
from cli.run.plan import MOST_KEPT_BYTES, Limits
from cli.run.price import agreed, check_limits, price, shown
from cli.run.progress import Reporter, counted
from cli.run.prune import prune
from cli.run.scan import is_image
from cli.run.send import Detached, Run
from cli.run.state import State
from cli.run.table import columns_of
from cli.run.types import Context
from cli.run.work import Interrupted, work

PATIENCE, BUSY_PATIENCE = 120.0, 6 * 3600.0  #: seconds for a service that is away, and for one that is busy
FIRST_PATIENCE = 5.0  #: before anything is sent, a person waits for the answer
SOURCE = "extract-image run"


def run(options: Options, context: Context) -> Exit:
    """Does the whole run. Raises CommandFault for what can't work."""
    try:
        columns_of(options.schema, options.explode)
    except ValueError as error:
        raise CommandFault(Exit.USAGE, str(error)) from None
    path = state_path(options)
    check_outputs(options, path)
    runs = state_home(os.environ) / "runs"
    with _disk_faults(), ExitStack() as stack:
        prune(runs, time.time(), context.reporter)
        new = not path.exists()
        state = _open_state(options, path, new=new)
        stack.callback(_close, state, path if new and not options.only_estimate else None)
        folder = _embedded_folder(runs, path, state)
        restart = None
        if options.restart and not new and not options.only_estimate:
            restart = _begin_anew(options, state, runs, path)
            stack.callback(restart.fresh.close)
            stack.callback(restart.end)
            state, folder = restart.fresh, restart.new_folder
        gather(options, state, path, context.reporter)
        if not options.retry_failed:
            state.try_again(also_lasting=False)
        if not options.only_estimate and not _has_work(options, state):
            if restart:
                raise CommandFault(Exit.USAGE, "There is nothing to send, so what was read before is kept.")
            text = "All images have been read before; nothing is sent." if state.tally().done else "There is nothing to send."
            context.reporter.say("nothing_to_send", text)
            return ending.end(options, context, state, [], state.cost())
        service = context.service
        own: Embedded | None = None
        if service is None:
            own = _start_embedded(options, folder, path, stack, context.reporter)
            service = Service(url=own.url, key=own.key)
        _check_service(state, EMBEDDED if own else service.url)
        agreement = _agree(options, context, state, service, restart)
        if agreement is None:
            return Exit.ALL
        code = _read(options, context, agreement, service, restart)
    if own and code in (Exit.ALL, Exit.SOME_FAILED) and not options.only_estimate:
        forget(folder)
    return code


def check_outputs(options: Options, state: Path) -> None:
    """Raises CommandFault if a file to write is named twice, or is a picture, which would be lost."""
    seen = {state.resolve()}
    for path in options.outputs.values():
        if path.resolve() in seen:
            raise CommandFault(Exit.USAGE, f"{path} would be written twice. Give each output a name of its own.")
        seen.add(path.resolve())
        if path.is_file() and is_image(path):
            raise CommandFault(Exit.USAGE, f"{path} is a picture and would be overwritten. Name another output file.")


@contextmanager
def _disk_faults() -> Iterator[None]:
    """Says what to do if the state file, or the rows so far, can't be written."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        where = f" {os.fsdecode(error.filename)}" if isinstance(error, OSError) and error.filename else ""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        text = f"Can't read or write{where}: {reason}. What was read is kept: mend the cause and run the same command again."
        raise CommandFault(Exit.USAGE, text) from None


def _close(state: State, path: Path | None) -> None:
    """Closes the state. `path`: its file if this run made it; a run that sent nothing leaves no file behind."""
    if path and state.untouched():
        path.unlink(missing_ok=True)
    state.close()


def state_path(options: Options) -> Path:
    """The state file: beside the first output, or in the XDG folder if the rows go to standard output."""
    for output in options.outputs.values():
        return output.with_name(f"{output.name}.state")
    name = digest([os.getcwd(), options.paths, options.fields()])[:32]  # noqa: PTH109 - a text is hashed
    return state_home(os.environ) / "runs" / f"{name}.state"


def _open_state(options: Options, path: Path, *, new: bool) -> State:
    if options.only_estimate:
        state = State(None)
        if path.exists() and not options.restart:
            state.copy_from(path)
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandFault(Exit.USAGE, f"Can't make the folder {path.parent}: {error.strerror}.") from None
        state = State(path, any_version=options.restart)
        if options.restart and not new:
            return state
    if state.untouched():
        state.set_fact("question", options.question_hash())
    if state.fact("question", options.question_hash()) != options.question_hash():
        state.close()
        text = (
            f"{path} has answers to another prompt, schema or model. Add --restart to read all images anew, or name another file."
        )
        raise CommandFault(Exit.USAGE, text)
    return state


def _begin_anew(options: Options, old: State, runs: Path, path: Path) -> Restart:
    """The state of a --restart. It is in memory until the user has agreed to the price."""
    fresh = State(None)
    fresh.set_fact("salt", secrets.token_hex(8))  # the jobs get other keys, so that the service does not answer with the old ones
    fresh.set_fact("question", options.question_hash())
    return Restart(
        old=old,
        fresh=fresh,
        old_folder=_embedded_folder(runs, path, old),
        new_folder=_embedded_folder(runs, path, fresh),
    )


def _embedded_folder(runs: Path, path: Path, state: State) -> Path:
    """Where an embedded service of this run has its data. Each --restart has a folder of its own."""
    salt = state.fact("salt", "")
    return runs / f"{digest(str(path.absolute()))[:32]}{'-' if salt else ''}{salt}"


def _has_work(options: Options, state: State) -> bool:
    return (
        any(True for _ in islice(state.sizes(), 1))
        or bool(state.unfinished_jobs())
        or (options.retry_failed and state.tally().failed > 0)
    )


def _start_embedded(options: Options, folder: Path, path: Path, stack: ExitStack, reporter: Reporter) -> Embedded:
    reads = what_reads()
    check_engine(options, reads, reporter)
    text = f"No service is configured, so one is started here for this run. It reads with {reads.engine} ({reads.model})."
    reporter.say("embedded", text, engine=reads.engine, model=reads.model)
    return stack.enter_context(embedded(folder, state=path))


def _check_service(state: State, identity: str) -> None:
    """Jobs that run at one service can't be read from another."""
    kept = state.fact("service", identity)
    if kept == identity:
        return
    if state.unfinished_jobs():
        at = "the embedded service" if kept == EMBEDDED else kept
        text = f"Jobs of an earlier run are still at {at}. Run the command with that service, or add --restart to give them up."
        raise CommandFault(Exit.USAGE, text)
    state.set_fact("service", identity)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Agreed:
    """A run that may begin: the service can do it, and the user agrees to its price."""

    state: State
    checked: Checked
    images: int  #: how many will be sent


def _agree(options: Options, context: Context, state: State, service: Service, restart: Restart | None) -> _Agreed | None:
    """Checks the run, says its price and asks. None after an estimate. Nothing is sent or forgotten here."""
    reporter = context.reporter
    with client_faults(), Client(service.url, service.key, patience=FIRST_PATIENCE, request_source=SOURCE) as client:
        checked = check(client, options, reporter)
        drop_gone(client, state, reporter)
        found = price(client, options, checked, state.sizes())
    if options.only_estimate:
        ending.show_estimate(found, checked.warnings, reporter)
        return None
    if found.images:
        reporter.say("price", shown(found), images=found.images, credits=found.credits, calls=found.calls, money=found.money)
    if options.retry_failed and (again := state.tally().failed):
        reporter.say("retry", f"{counted(again, 'failed image')} will be tried again.", images=again)
    check_limits(found, options, checked)
    if restart:
        restart.tell(reporter)
    if not agreed(found, options, reporter, can_ask=context.can_ask, always=restart is not None):
        raise CommandFault(Exit.INTERRUPTED, "Nothing was sent." if not restart else "Nothing was sent, and nothing forgotten.")
    return _Agreed(state=state, checked=checked, images=found.images)


def _read(options: Options, context: Context, agreement: _Agreed, service: Service, restart: Restart | None) -> Exit:
    """Sends what is to be read, follows it, and writes the table."""
    stop, board, state = threading.Event(), Board(), agreement.state

    def wait(seconds: float) -> None:
        if stop.wait(seconds):
            raise Detached

    def on_wait(reason: str, _seconds: float) -> None:
        board.waiting = reason

    with Client(
        service.url,
        service.key,
        patience=PATIENCE,
        busy_patience=BUSY_PATIENCE,
        request_source=SOURCE,
        sleep=wait,
        on_wait=on_wait,
    ) as client:
        if restart:
            with client_faults():
                state = restart.begin(client, context.reporter)
        forget_gone(state)
        before, own = state.cost(), state.fact("service", "") == EMBEDDED
        running = Run(
            options=options,
            client=client,
            state=state,
            reporter=context.reporter,
            limits=Limits.of(agreement.checked.formats, options.images_per_job),
            salt=state.fact("salt", ""),
            keep=not own and agreement.checked.keeps and state.tally().bytes <= MOST_KEPT_BYTES,
            of_images=agreement.images,
            stop=stop,
            full=threading.Event(),
            packing=threading.Lock(),
        )
        if options.retry_failed:
            retry_failed(running)
        part = ending.part_files(options, state)
        try:
            faults = work(running, board, part.add)
        except Interrupted as interrupted:
            part.close(remove=False)
            return ending.detached(context, own=own, cancelled=interrupted.cancelled)
        part.close(remove=True)
    return ending.end(options, context, state, faults, before)


def retry_failed(running: Run) -> None:
    """Tries the failed images again: as a next round where the service has kept them, which is cheaper, else as new jobs."""
    for job in running.state.jobs_with_failures():
        try:
            running.client.retry(job.id)
            running.state.reopen(job)
        except ApiError as error:
            if error.status not in (404, 409, 410):
                raise
            if error.code in ("not_finished", "nothing_to_retry"):  # the answer to an earlier try was lost
                running.state.reopen(job)
    running.state.try_again(also_lasting=True)
