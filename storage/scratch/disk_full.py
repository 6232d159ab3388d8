"""A disk or a bucket that takes no more: unlike one that is away, it does not come back by itself."""

from __future__ import annotations

import errno

from sqlalchemy.exc import DBAPIError

_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
_POSTGRES = "53100"  #: SQLSTATE disk_full
_SQLITE = 13  #: SQLITE_FULL
#: What S3 servers say; the status 507 says it too.
S3_CODES = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)

WARNING = "The service has no room left for images or rows; the job goes on when whoever runs it has made some."


def is_full(error: BaseException) -> bool:
    """Whether the error says that the disk of scratch, of bodies or of the database, or the bucket, is full."""
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) == _POSTGRES or getattr(error.orig, "sqlite_errorcode", None) == _SQLITE
    return isinstance(error, OSError) and error.errno in _ERRNO
