"""Turns a refusal of the service into an error that tells an agent what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from mcp.server.mcpserver.exceptions import ToolError

from cli.client import ApiError, ClientError, FileChanged, Unreachable

#: code of a refusal → what to do next
NEXT_STEPS = {
    "unauthorized": "Ask the user for a valid key in EXTRACT_IMAGE_KEY; do not try again before that.",
    "insufficient_credits": "Ask the user to grant more credits, or call extract with fewer images.",
    "max_credits_too_low": "Call extract again with a higher maxCredits if the user agrees to the cost, or with fewer images.",
    "max_money_too_low": "Call extract again with a higher maxMoney if the user agrees to the cost, or with fewer images.",
    "not_found": "Check the jobId: it is the one that extract returned. The job may have been deleted.",
    "not_finished": "Call get_job to wait until the job has ended, then try again.",
    "nothing_to_retry": "Call get_job to read the results: no image failed.",
    "inputs_gone": "Call extract again with just the images that failed; list_failed names them.",
    "results_expired": "Call extract again: the results of this job are deleted.",
    "too_many_open_jobs": "Wait for a job to end with get_job, then try again.",
    "scratch_full": "Try again in a minute.",
    "account_full": "Ask the user to delete jobs that are no longer needed, or wait until results expire; waiting a minute does not help.",
    "rate_limited": "Wait a minute, then try again with fewer calls.",
}
MEND = "Mend the arguments as the message says, then call the tool again."


@contextmanager
def told_to_the_agent() -> Iterator[None]:
    """Raises ToolError for each error of the client in the block."""
    try:
        yield
    except ApiError as error:
        step = NEXT_STEPS.get(error.code) or (MEND if error.status < 500 else "Tell the user; the service's log has the cause.")
        code = f" ({error.code})" if error.code else ""
        raise ToolError(f"{error.message}{code} Next: {step}") from None
    except Unreachable as error:
        step = "Ask the user whether the service runs (`extract-image serve`) and whether EXTRACT_IMAGE_URL names it."
        raise ToolError(f"{error} Next: {step}") from None
    except FileChanged as error:
        raise ToolError(f"{error}. Next: call the tool again when the file is no longer written.") from None
    except ClientError as error:
        raise ToolError(f"{error} Next: {MEND}") from None


def check_names(tool: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raises ToolError if an argument has none of the `known` names."""
    wrong = [name for name in given if name not in known]
    if not wrong:
        return
    close = [(name, get_close_matches(name.lower(), [each.lower() for each in known], n=1, cutoff=0.7)) for name in wrong]
    named = ", ".join(f"{name} (is it {_as_known(found[0], known)}?)" if found else name for name, found in close)
    raise ToolError(
        f"{tool} has no argument {named}, so nothing was done. Its arguments are: {', '.join(known)}. Next: call {tool} again with these."
    )


def _as_known(lowered: str, known: Sequence[str]) -> str:
    return next(name for name in known if name.lower() == lowered)
