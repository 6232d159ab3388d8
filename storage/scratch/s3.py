"""Scratch objects in a bucket of S3 or of a server that speaks as it does.

boto3 is imported at the first use: it weighs, and a service on a folder never needs it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import IO, Any

from config.settings import Settings
from pipeline.errors import PartError, Permanent, StorageFull, Transient, not_allowed, os_errors
from pipeline.scratch_key import SAFE_KEY
from pipeline.types import MB

WHOLE = 8 * MB  #: bytes: up to here a body goes out of memory, and an object that is read stays in it
IN_PARTS = 64 * MB  #: bytes: beyond this an object is put in parts, so that a failed one costs little
PART = 16 * MB  #: bytes
PIECE = 1 * MB  #: bytes read at a time
BULK = 1000  #: objects that one request may delete
POOL = 512  #: idle connections kept: WORKER_CONCURRENCY at its highest

#: Statuses of a bulk delete that is refused for its checksum: bad request, length required, not implemented.
_CHECKSUM_REFUSED = (400, 411, 501)
#: What servers say of a bucket that is full; the status 507 says it too.
FULL_CODES = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
#: What may succeed when it is asked again, beside the statuses from 500 on: too slow a request, too many at once.
_AGAIN_STATUSES = frozenset({408, 409, 429})
_AGAIN_CODES = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
#: What to look at, by the error's code. It is all that is told of an error: its own message may hold keys.
_HINTS = {
    "AccessDenied": "the key of AWS_ACCESS_KEY_ID may not do that",
    "AuthorizationHeaderMalformed": "look at AWS_REGION",
    "ExpiredToken": "look at AWS_SESSION_TOKEN: it has expired",
    "IllegalLocationConstraintException": "look at AWS_REGION",
    "InvalidAccessKeyId": "look at AWS_ACCESS_KEY_ID: the server does not know it",
    "InvalidToken": "look at AWS_SESSION_TOKEN",
    "PermanentRedirect": "look at AWS_REGION and S3_ENDPOINT_URL",
    "RequestTimeTooSkewed": "look at this machine's clock",
    "SignatureDoesNotMatch": "look at AWS_SECRET_ACCESS_KEY",
}


def s3_client(settings: Settings) -> Any:
    """A client of boto3's, for all threads of the process. What is not set is looked for where boto3 does."""
    from boto3 import Session
    from botocore.config import Config

    def text(value: Any) -> str | None:
        return value.get_secret_value() if value else None

    session = Session(
        aws_access_key_id=text(settings.aws_access_key_id),
        aws_secret_access_key=text(settings.aws_secret_access_key),
        aws_session_token=text(settings.aws_session_token),
        region_name=settings.aws_region or None,
    )
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "total_max_attempts": 3},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=POOL,
        tcp_keepalive=True,
        # Other servers than Amazon's do not all know its newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return session.client("s3", endpoint_url=settings.s3_endpoint_url or None, config=config)


class S3Scratch:
    """One object of the bucket for each of ours, its name below `prefix`. Objects that are not ours are not seen.

    Raises FileNotFoundError only for a missing object; for all else that S3 does or fails to do Transient or Permanent,
    which say what to look at. Keys, buckets and regions are set by a person, who can mend them while jobs wait: what S3
    refuses for them is Transient, with a notice.
    """

    def __init__(self, connect: Callable[[], Any], *, bucket: str, prefix: str = "") -> None:
        self._connect = connect
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._made: Any = None
        self._with_md5 = False

    def put(self, key: str, body: IO[bytes]) -> None:
        place = {"Bucket": self._bucket, "Key": self._name(key)}
        size = body.seek(0, 2)
        body.seek(0)
        with self._told("put"):
            if size <= WHOLE:
                self._client.put_object(**place, Body=body.read())
            elif size <= IN_PARTS:
                self._client.put_object(**place, Body=body)
            else:
                from boto3.s3.transfer import TransferConfig

                # No threads of its own: one part at a time is in memory.
                parts = TransferConfig(multipart_threshold=IN_PARTS, multipart_chunksize=PART, use_threads=False)
                self._client.upload_fileobj(body, **place, Config=parts)

    def open(self, key: str) -> IO[bytes]:
        name = self._name(key)
        file = tempfile.SpooledTemporaryFile(max_size=WHOLE)  # noqa: SIM115 - the caller's to close
        try:
            with self._told("open", key):
                answer = self._client.get_object(Bucket=self._bucket, Key=name)
                with closing(answer["Body"]) as body:
                    shutil.copyfileobj(body, file, PIECE)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def delete(self, keys: Iterable[str]) -> None:
        failed: list[tuple[str, str]] = []
        rest = iter(keys)
        while names := [self._name(key) for key in islice(rest, BULK)]:
            with self._told("delete"):
                failed += self._delete(names)
        if failed:
            key, code = failed[0]
            text = f"{len(failed)} scratch objects could not be deleted, the first is {key} ({code})"
            raise Transient(text) if any(code in _AGAIN_CODES for _, code in failed) else Permanent(text)

    def list(self, prefix: str) -> Iterator[str]:
        with self._told("list"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self._prefix)
                    if SAFE_KEY.fullmatch(key):
                        yield key

    def _delete(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """One request; name and code of each object that could not be deleted.

        A server may refuse the checksum that boto3 sends and demand the older Content-MD5: it is told once.
        """
        from botocore.exceptions import ClientError

        request = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        try:
            answer = self._client.delete_objects(Bucket=self._bucket, Delete=request)
        except ClientError as error:
            if self._with_md5 or _status(error) not in _CHECKSUM_REFUSED:
                raise
            self._with_md5 = True
            try:
                answer = self._client.delete_objects(Bucket=self._bucket, Delete=request)
            except ClientError:
                self._with_md5 = False
                raise
        for each in answer.get("Errors", ()):
            code = _plain(each.get("Code", ""))
            if code != "NoSuchKey":
                yield each.get("Key", "").removeprefix(self._prefix), code

    @property
    def _client(self) -> Any:
        """Made at the first use: a process that forks must not share its connections."""
        with self._lock:
            if self._made is None:
                self._made = self._connect()
                self._made.meta.events.register("before-sign.s3.DeleteObjects", self._checksum)
            return self._made

    def _checksum(self, request: Any, **_: Any) -> None:
        if not self._with_md5:
            return
        for header in [name for name in request.headers if name.lower().startswith(("x-amz-checksum-", "x-amz-sdk-checksum-"))]:
            del request.headers[header]
        digest = hashlib.md5(request.data, usedforsecurity=False).digest()
        request.headers["Content-MD5"] = base64.b64encode(digest).decode()

    @contextmanager
    def _told(self, action: str, key: str = "") -> Iterator[None]:
        """Errors of boto3's as the port's; with none of its texts, which may hold keys and signed URLs."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            with os_errors():  # of the temporary file, too
                yield
        except ClientError as error:
            raise self._refused(error, action, key) from None
        except (BotoCoreError, HTTPError) as error:
            raise self._failed(error) from None

    def _refused(self, error: Any, action: str, key: str) -> PartError | FileNotFoundError:
        """What an answer with an error means."""
        status, code = _status(error), _plain(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            return not_allowed(
                f"There is no bucket {self._bucket} at {self._place}. Make it, or look at SCRATCH_URL and S3_ENDPOINT_URL."
            )
        if key and code == "NoSuchKey":  # and no other 404: a proxy before a server that is away gives such too
            return FileNotFoundError(key)
        denied = status in (401, 403) or code in _HINTS
        hint = _HINTS.get(code, "look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if denied else "look at S3_ENDPOINT_URL")
        told = f"{self._place} refused to {action} in the bucket {self._bucket}: {status} {code}"
        if status == 507 or code in FULL_CODES:
            return StorageFull(f"{told}: make room in it")
        if status == 501:
            return Permanent(f"{told}; {hint}")
        if status >= 500:
            return Transient(told)
        if denied:
            return not_allowed(f"{told}; {hint}")
        again = status in {*_AGAIN_STATUSES, 404} or code in _AGAIN_CODES
        return Transient(f"{told}; {hint}") if again else Permanent(f"{told}; {hint}")

    def _failed(self, error: Exception) -> PartError:
        """What it means that there was no answer, or none that is S3's."""
        from botocore import exceptions as of

        what = type(error).__name__
        if isinstance(error, (of.NoCredentialsError, of.PartialCredentialsError, of.CredentialRetrievalError)):
            return not_allowed("S3 needs a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SECRET_ACCESS_KEY_FILE).")
        if isinstance(error, (of.ConnectionError, of.HTTPClientError, of.IncompleteReadError)) or not isinstance(
            error, of.BotoCoreError
        ):
            return Transient(f"No S3 server can be reached at {self._place} ({what}). Look at S3_ENDPOINT_URL.")
        if isinstance(error, of.ParamValidationError):  # of a request that boto3 did not send: ours was wrong
            return Permanent(f"S3 can't be asked that ({what}).")
        return not_allowed(f"S3 can't be used at {self._place} ({what}). Look at S3_ENDPOINT_URL and AWS_REGION.")

    @property
    def _place(self) -> str:
        return str(self._made.meta.endpoint_url) if self._made is not None else "the endpoint"

    def _name(self, key: str) -> str:
        if not SAFE_KEY.fullmatch(key):
            raise ValueError(f"no scratch key: {key!r}")
        return self._prefix + key


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _plain(code: str) -> str:
    """The code of an error, shortened to what Amazon's look like."""
    return re.sub(r"[^A-Za-z0-9]", "", code)[:64]
