"""Makes the wall clock of a process wrong, before anything else is imported, so that botocore and all other packages see it."""

from __future__ import annotations

import datetime  # noqa: ICN001 - the module itself is changed
import time

_real_datetime = datetime.datetime


class _SameKind(type):
    """Takes real datetimes, which packages in C make, for the wrong ones too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real_datetime)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _real_datetime)


def shift_clock(seconds: float) -> None:
    if not seconds:
        return
    real, real_ns, real_gmtime, real_localtime = time.time, time.time_ns, time.gmtime, time.localtime
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    time.gmtime = lambda when=None: real_gmtime(time.time() if when is None else when)  # type: ignore[assignment]
    time.localtime = lambda when=None: real_localtime(time.time() if when is None else when)  # type: ignore[assignment]
    ahead = datetime.timedelta(seconds=seconds)

    class WrongDatetime(_real_datetime, metaclass=_SameKind):
        __slots__ = ()

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return _real_datetime.now(tz) + ahead

        @classmethod
        def utcnow(cls) -> datetime.datetime:  # type: ignore[override]
            return _real_datetime.now(datetime.UTC).replace(tzinfo=None) + ahead

    datetime.datetime = WrongDatetime  # type: ignore[misc]
