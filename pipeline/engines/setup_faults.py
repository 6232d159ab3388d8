"""Tells which refusals of a model's server are about the account, the model's name or the address, by their status and their words.

No picture can cause them, and waiting alone does not help: a person has to correct something.
"""

from __future__ import annotations

import re
from enum import StrEnum

from pipeline.ports import Cause

#: Refusals of the key or the account that come with a 400.
_KEY = re.compile(
    r"api[ _-]?key (?:is )?(?:not valid|invalid|expired|not found|missing)|(?:invalid|incorrect|wrong|expired|missing|no)[ _]api[ _-]?key"
    r"|authentication[ _]?error|unauthori[sz]ed|(?:account|organization|project|consumer)\b.{0,40}(?:disabled|suspended|deactivated)"
    r"|no_db_connection",  # LiteLLM without a database, to a key that is not its master key
    re.IGNORECASE,
)
_BILLING = re.compile(r"credit balance|insufficient (?:credits|funds|balance|quota)|insufficient_quota|billing", re.IGNORECASE)
#: A server behind TLS that was asked without it, as Go's HTTP server and nginx say it.
_PLAIN_HTTP = re.compile(r"HTTP request (?:was sent )?to (?:an )?HTTPS (?:server|port)", re.IGNORECASE)
_REGION = re.compile(r"location is not supported|(?:country|region)\b.{0,40}not supported|unsupported[ _]country", re.IGNORECASE)
#: A refusal of the model's name that comes with a 400, as LiteLLM and others send it.
_NO_MODEL = re.compile(
    r"model[ _]not[ _](?:found|exist)|invalid model name|no such model|unknown model|no models? loaded|not a valid model"
    r"|LLM Provider NOT provided|model\W{1,3}[\w./:-]+\W{1,3}(?:was )?(?:not found|does not exist|is not (?:available|loaded))"
    r"|\bmodel:? *[`'\"]?[\w./:@-]+[`'\"]? (?:does not exist|(?:was )?not found|is not (?:available|loaded|found|a valid model))",
    re.IGNORECASE,
)


class Fault(StrEnum):
    """What a person has to correct."""

    KEY = "key"
    RIGHTS = "rights"  #: the key is known, but may not do this
    CREDIT = "credit"
    REGION = "region"
    MODEL = "model"
    ADDRESS = "address"

    @property
    def cause(self) -> Cause:
        return {Fault.MODEL: Cause.MODEL, Fault.ADDRESS: Cause.ADDRESS}.get(self, Cause.ACCOUNT)


def fault_of(status: int, said: str) -> Fault | None:
    """What a person has to correct after this answer. None if it is about something else.

    A 400 is judged by its words, because servers send it for all of these, and for pictures too. So is a 500, which a proxy sends for
    a refused key or an unknown model.
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 500:
        return Fault.KEY if _KEY.search(said) else Fault.MODEL if _NO_MODEL.search(said) else None
    if status not in {400, 403, 404, 422}:
        return None
    if _PLAIN_HTTP.search(said):
        return Fault.ADDRESS
    if _REGION.search(said):
        return Fault.REGION
    if status == 404:
        # A path that is not there is answered without a word about a model, or with no JSON at all.
        return Fault.MODEL if re.search("model|endpoints", said, re.IGNORECASE) else Fault.ADDRESS
    if status != 422 and _BILLING.search(said):
        return Fault.CREDIT
    if _KEY.search(said):
        return Fault.KEY
    if _NO_MODEL.search(said):
        return Fault.MODEL
    return Fault.RIGHTS if status == 403 else None


_BY_STATUS = {401: Fault.KEY, 402: Fault.CREDIT, 405: Fault.ADDRESS, 451: Fault.REGION}
