"""The models that a request may name, with their prices, their limits and the tokens of a picture. The module has no side effects.

Prices and tokens are those of November 2026, and include the prices that are announced for later. Google does not publish quotas,
so quotas are settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from datetime import date
from typing import Any

from pipeline.types import MAX_OUTPUT_TOKENS, Detail, Tier

TOKENS_PER_CHARACTER = 0.3  #: estimated tokens for each character of a prompt; English text has about 4 characters a token
RECORD_TOKENS = 300  #: estimated tokens of one record, or of one picture's part of a merged answer
INSTRUCTIONS = 400  #: about the number of characters that an engine adds to the prompt
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallPrice:
    """What a call will cost, in billionths of a dollar."""

    expected: int  #: by estimate
    highest: int  #: if the answer is as long as it may be


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model that the service may ask."""

    name: str  #: the model's name at its server
    price_in: float = 0.0  #: dollars per 1,000,000 tokens of input
    price_out: float = 0.0  #: dollars per 1,000,000 tokens of output, thinking included
    later_in: Mapping[date, float] = dataclass_field(
        default_factory=dict
    )  #: later values of `price_in`, by the day from which each one holds
    later_out: Mapping[date, float] = dataclass_field(default_factory=dict)  #: the same for `price_out`
    #: The price of a call in the tier `economy`, as a fraction of the price in `standard`. 0: the model has no such tier.
    flex: float = 0.0
    later_flex: Mapping[date, float] = dataclass_field(default_factory=dict)  #: later values of `flex`, as in `later_in`
    rpm: int | None = None  #: requests a minute; 0: no limit, None: MODEL_RPM
    tpm: int | None = None  #: input tokens a minute; 0: no limit, None: MODEL_TPM
    low: int = 280  #: tokens of a picture with `detail` "low"
    medium: int = 560  #: tokens of a picture with `detail` "medium"
    high: int = 1120  #: tokens of a picture with `detail` "high"
    ultra: int = 2240  #: tokens of a picture with `detail` "ultra"
    pictures: int = 900  #: the most pictures a call; 1,048,576 tokens of input / 1,120 are about 936

    def picture_tokens(self, detail: Detail) -> int:
        """The estimated input tokens of one picture."""
        return {Detail.LOW: self.low, Detail.MEDIUM: self.medium, Detail.HIGH: self.high, Detail.ULTRA: self.ultra}[detail]

    def input_tokens(self, *, characters: int, pictures: int, detail: Detail) -> int:
        """The estimated input tokens of a call that is not yet made. `characters`: those of the prompt and the schema together."""
        labels = 6 * pictures
        return round(characters * TOKENS_PER_CHARACTER) + labels + pictures * self.picture_tokens(detail)

    def price(self, *, input_tokens: int, output_tokens: int, day: date, tier: Tier = Tier.STANDARD) -> int:
        """The price of a call on this day (UTC), in billionths of a dollar. It is a whole number, so that sums are exact.

        `tier`: the tier in which the call was served. A model that has no tier `economy` asks the standard price for it.
        """
        price_in, price_out = _on(day, self.price_in, self.later_in), _on(day, self.price_out, self.later_out)
        return round((input_tokens * price_in + output_tokens * price_out) * 1000 * self.fraction(tier, day))

    def fraction(self, tier: Tier, day: date) -> float:
        """The price in this tier on this day (UTC), as a fraction of the price in `standard`. 1 if the model has no such tier."""
        return (tier is Tier.ECONOMY and _on(day, self.flex, self.later_flex)) or 1.0

    def has_tier(self, tier: Tier, day: date) -> bool:
        """Whether the model can be asked in this tier on this day (UTC)."""
        return tier is Tier.STANDARD or _on(day, self.flex, self.later_flex) > 0

    def call_price(self, *, characters: int, pictures: int, detail: Detail, day: date, tier: Tier = Tier.STANDARD) -> CallPrice:
        """The price of a call that is not yet made. The arguments are those of `input_tokens`. A call without pictures merges answers.

        The highest price of a call in the tier `economy` is a standard price, because its server may serve it as a standard call.
        """
        given = self.input_tokens(characters=characters + INSTRUCTIONS, pictures=pictures, detail=detail)
        longest = given + round(characters * (1 - TOKENS_PER_CHARACTER))  # some scripts have a token for each character
        return CallPrice(
            expected=self.price(input_tokens=given, output_tokens=output_tokens(pictures), day=day, tier=tier),
            highest=self.price(input_tokens=longest, output_tokens=MAX_OUTPUT_TOKENS, day=day),
        )

    @property
    def has_price(self) -> bool:
        return any((self.price_in, self.price_out, *self.later_in.values(), *self.later_out.values()))


def output_tokens(pictures: int) -> int:
    """The estimated tokens of the answer of a call with so many pictures. A call without pictures merges answers."""
    return min(pictures * RECORD_TOKENS, MAX_OUTPUT_TOKENS) if pictures else MAX_OUTPUT_TOKENS // 2


def _on(day: date, first: float, later: Mapping[date, float]) -> float:
    held = [since for since in later if since <= day]
    return later[max(held)] if held else first


_NEW_YEAR = date(2027, 1, 1)


#: The models that are known without a setting. The prices are Google's, as users reported them in November 2026.
KNOWN: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model(name="gemini-3.5-flash-lite", price_in=0.30, price_out=2.50, flex=0.5),
        Model(
            name="gemini-3.8-flash",
            price_in=0.75,
            price_out=3.75,
            flex=0.5,
            later_in={_NEW_YEAR: 1.50},
            later_out={_NEW_YEAR: 7.50},
        ),
    )
}

#: The keys that may follow a model's name in MODELS, each with its field and the function that reads the value.
_TRAITS = {
    "in": ("price_in", float),
    "out": ("price_out", float),
    "flex": ("flex", float),
    "rpm": ("rpm", int),
    "tpm": ("tpm", int),
    "low": ("low", int),
    "medium": ("medium", int),
    "high": ("high", int),
    "ultra": ("ultra", int),
    "pictures": ("pictures", int),
}


_LATER = {"in": "later_in", "out": "later_out", "flex": "later_flex"}


def parse_models(text: str) -> tuple[Model, ...]:
    """Reads the setting MODELS: `name in=0.30 out=2.50 rpm=60; name …`. A known model keeps the values that the setting omits.

    `in@2027-01-01=1.50` is a price from that day on. A price without a day holds until the first later day in the setting. It
    also replaces all later prices that are known without the setting. `flex=0.5` is the price in the tier `economy`, as a
    fraction of the price in `standard`, and may have days too.

    Raises ValueError, whose text names every fault.
    """
    faults: list[str] = []
    models: dict[str, Model] = {}
    for entry in filter(None, map(str.split, text.split(";"))):
        name, *traits = entry
        if not _NAME.fullmatch(name) or "=" in name:
            faults.append(f"{name[:40]} is no name of a model")
            continue
        if name in models:
            faults.append(f"{name} is there twice")
        models[name] = _with_traits(known(name), traits, faults)
    if not models and not faults:
        faults.append("names no model")
    if faults:
        shape = "must be like `name in=0.30 out=2.50 rpm=60 tpm=1000000; name2 …`"
        raise ValueError(f"{'; '.join(faults)}. It {shape}")
    return tuple(models.values())


def _with_traits(model: Model, traits: Iterable[str], faults: list[str]) -> Model:
    # A price without a day is read first, because it replaces all known later prices.
    for trait in sorted(traits, key=lambda trait: "@" in trait.partition("=")[0]):
        key, _, value = trait.partition("=")
        key, at, day_text = key.partition("@")
        if key not in _TRAITS or (at and key not in _LATER):
            faults.append(f"{model.name}: {trait[:40]} is unknown, there are {', '.join(_TRAITS)}")
            continue
        field, read = _TRAITS[key]
        lowest = 1 if field == "pictures" else 0
        try:
            number = read(value)
        except ValueError:
            number = -1
        highest = 1 if field == "flex" else 1e12
        if not lowest <= number <= highest:
            bounds = f"of at least {lowest}" if field != "flex" else "from 0 to 1"
            faults.append(f"{model.name}: {key} must be a number {bounds}, not {value[:40] or 'nothing'}")
            continue
        if not at:
            changed: dict[str, Any] = {field: number, **({_LATER[key]: {}} if key in _LATER else {})}
            model = replace(model, **changed)
            continue
        try:
            day = date.fromisoformat(day_text)
        except ValueError:
            faults.append(f"{model.name}: {key}@ must name a day such as 2027-01-01, not {day_text[:40] or 'nothing'}")
            continue
        held: dict[str, Any] = {_LATER[key]: {**getattr(model, _LATER[key]), day: number}}
        model = replace(model, **held)
    return model


def known(name: str) -> Model:
    """The known model of this name. An unknown name gives a model without a price, whose pictures count as Gemini's do."""
    return KNOWN.get(name) or Model(name=name)


def with_limits(models: Iterable[Model], *, rpm: int, tpm: int) -> tuple[Model, ...]:
    """The models. Those that have no limits of their own get these limits."""
    return tuple(
        replace(model, rpm=rpm if model.rpm is None else model.rpm, tpm=tpm if model.tpm is None else model.tpm)
        for model in models
    )


def most_pictures(models: Mapping[str, Model], names: Sequence[str]) -> int:
    """The most pictures of a call that any of the named models may have to answer: the smallest of their limits."""
    return min((models[name].pictures for name in names if name in models), default=Model(name="").pictures)
