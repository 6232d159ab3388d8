"""Says what a run will cost, and asks whether to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import click

from cli.client import Client
from cli.exits import CommandFault, Exit, client_faults
from cli.run.check import NOWHERE, Checked
from cli.run.options import ECONOMY, Options
from cli.run.plan import Limits, job_sizes
from cli.run.progress import Reporter, counted

SMALL_CREDITS = 100  #: a run up to this price, and up to SMALL_MONEY dollars, begins without a question
SMALL_MONEY = 0.10
MOST_ASKED = 3  #: sizes of jobs for which the service is asked; the others are reckoned from them


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What a run costs at most, if no model call has to be repeated."""

    images: int
    jobs: int
    credits: int
    calls: int
    money: float  #: dollars; 0 if the model costs nothing or its price is not known
    economy: float | None = None  #: the same in the tier economy; None: the model has no such tier, or it is the tier of the run


def price(client: Client, options: Options, checked: Checked, sizes: Iterable[tuple[bool, str, int]]) -> Price:
    """The price of the images that will be sent. `sizes`: whether each is a URL, its name, its bytes."""
    jobs = Counter(job_sizes(sizes, Limits.of(checked.formats, options.images_per_job)))
    images = sum(size * count for size, count in jobs.items())
    formats = checked.formats
    calls, money, economy = 0.0, 0.0, 0.0
    has_economy = options.tier != ECONOMY
    asked = [size for size, _ in jobs.most_common(MOST_ASKED)]
    for size in asked:
        with client_faults():
            found = client.estimate([NOWHERE] * size, options.fields())
        calls += found.model_calls * jobs[size]
        money += found.money * jobs[size]
        economy += (found.economy or 0.0) * jobs[size]
        has_economy = has_economy and found.economy is not None
    covered = sum(size * jobs[size] for size in asked)
    scale = images / covered if covered else 1.0
    return Price(
        images=images,
        jobs=jobs.total(),
        credits=formats.credits_base * jobs.total() + formats.credits_per_image * images,
        calls=round(calls * scale),
        money=money * scale,
        economy=economy * scale if has_economy else None,
    )


def shown(found: Price) -> str:
    money = f", about ${found.money:,.2f}" if found.money >= 0.005 else (", under $0.01" if found.money else "")
    if found.economy is not None and found.economy >= 0.005:
        money += f" (${found.economy:,.2f} with --tier economy)"
    jobs, calls = counted(found.jobs, "job"), counted(found.calls, "model call")
    return f"{counted(found.images, 'image')} in {jobs}: at most {found.credits:,} credits, {calls}{money}"


def check_limits(found: Price, options: Options, checked: Checked) -> None:
    """Raises CommandFault if the price is over what the user allows or has."""
    if options.max_credits is not None and found.credits > options.max_credits:
        text = f"The run may cost {found.credits} credits, and --max-credits is {options.max_credits}. Raise it, or use --sample."
        raise CommandFault(Exit.KEY_OR_CREDITS, text)
    if options.max_money is not None and found.money > options.max_money:
        text = f"The run may cost ${found.money:.2f}, and --max-money is {options.max_money:g}. Raise it, or use --sample."
        raise CommandFault(Exit.KEY_OR_CREDITS, text)
    if found.credits > checked.available:
        text = f"The run may cost {found.credits} credits, and the account has {checked.available}. Grant more, or use --sample."
        raise CommandFault(Exit.KEY_OR_CREDITS, text)


def agreed(found: Price, options: Options, reporter: Reporter, *, can_ask: bool, always: bool = False) -> bool:
    """Whether to go on. The user is asked only on a terminal, and only if the run is not small or `always`."""
    small = not always and found.credits <= SMALL_CREDITS and found.money <= SMALL_MONEY
    if options.yes or small or not can_ask:
        return True
    reporter.end_bar()
    return bool(click.confirm("Continue?", default=True, err=True))
