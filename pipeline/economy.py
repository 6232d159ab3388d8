"""The plan of an economy job: which call is asked in which tier, so that every answer is there before the job's deadline. Pure.

A server answers calls in the tier `economy` when it has capacity, and promises nothing. So the plan does not count on it. It knows
how fast calls would be answered in the tier `standard`, and gives each call a last moment: counted back from the deadline, the
calls are asked one after another at that pace. Until its last moment a call is asked in `economy`, and from then on in `standard`.
Each answer that comes before shortens the row of calls, so the last moments of the others move towards the deadline.

Jobs share the pace. The calls of a job with a later deadline come later in the row, so they push the calls of this job forward
only where the row of that job is long enough to reach back to this job's deadline.

All times are in seconds from now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.models import Model
from pipeline.types import Tier

FLEX_SECONDS = 960.0  #: the longest wait for an answer in `economy`; its servers aim at 1 to 15 minutes
TYPICAL_SECONDS = 300.0  #: how long an answer in `economy` is assumed to take before any was seen
STANDARD_SECONDS = 30.0  #: the same for `standard`
RESERVE_SECONDS = 240.0  #: kept free before the deadline: one call that takes as long as it may, and the end of the job
LEAST_SECONDS = RESERVE_SECONDS + STANDARD_SECONDS + TYPICAL_SECONDS  #: with less time, no call is asked in `economy`
SHARE = 0.5  #: the fraction of the model's limits that the plan counts on, because standard jobs use them too
ASKED_AGAIN = 1.5  #: requests for each planned call, because some answers are not usable: see pipeline/asking/ask.py


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast calls are answered in the tier `standard`."""

    calls_per_second: float  #: that may be started; infinite if nothing limits them
    seconds: float = STANDARD_SECONDS  #: from a call to its answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """The calls of another economy job that have no answer yet."""

    left: float  #: until its deadline
    calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """How a call is asked next."""

    tier: Tier
    timeout: float  #: seconds after which a call in `economy` is given up, because it must be asked in `standard`


def pace_of(model: Model, *, tokens: int, concurrency: int, seconds: float = STANDARD_SECONDS) -> Pace:
    """The pace that the model's limits allow.

    `tokens`: input tokens of a call; `concurrency`: most calls at a time; `seconds`: how long a call was seen to take.
    """
    rates = [concurrency / max(seconds, 1.0)]
    if model.rpm:
        rates.append(model.rpm / 60)
    if model.tpm:
        rates.append(model.tpm / 60 / max(tokens, 1))
    return Pace(calls_per_second=min(rates) * SHARE, seconds=seconds)


def last_moment(*, left: float, after: int, later: Iterable[Backlog], pace: Pace) -> float:
    """In how many seconds a call must be asked in `standard`, at the latest. Zero or less: now.

    `left`: until the job's deadline. `after`: how many calls of the same job without an answer come after this one in the row.
    `later`: the jobs whose deadline is not before this job's; of jobs with the same deadline, those that come after it.
    """
    each = ASKED_AGAIN / pace.calls_per_second
    ends = max((backlog.left for backlog in later), default=left)
    for backlog in sorted(later, key=lambda backlog: backlog.left, reverse=True):
        ends = min(ends, backlog.left) - backlog.calls * each
    return min(ends, left) - (after + 1) * each - pace.seconds - RESERVE_SECONDS


def next_ask(*, left: float, after: int, later: Iterable[Backlog], pace: Pace, seen: Sequence[float] = ()) -> Ask:
    """How a call without an answer is asked now. The arguments are those of `last_moment`.

    `seen`: how many seconds the last answers in `economy` took. A call whose last moment comes before half of them would be there
    is asked in `standard`, because it would probably be given up, and its server may charge for it all the same.
    """
    moment = last_moment(left=left, after=after, later=later, pace=pace)
    if moment < (median(seen) if seen else TYPICAL_SECONDS):
        return Ask(tier=Tier.STANDARD, timeout=max(left, 0.0))
    return Ask(tier=Tier.ECONOMY, timeout=min(moment, FLEX_SECONDS))
