"""Scratch objects in a bucket of S3 or of an S3-compatible server.

boto3 is imported at the first use, because it takes much memory and a service with a scratch folder never needs it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import IO, Any

from config.settings import Settings
from pipeline.errors import PartError, Permanent, StorageFull, Transient, not_allowed, os_errors
from pipeline.scratch_key import SAFE_KEY
from pipeline.types import MB
from storage.scratch.s3_quick import CONTENT_TYPE, PIECE, USER_AGENT, QuickRequests, quick_requests

WHOLE = 8 * MB  #: bytes; smaller objects are held in memory when they are sent or read
IN_PARTS = 64 * MB  #: bytes; larger objects are uploaded in parts, so that a failure repeats only one part
PART = 16 * MB  #: bytes of one part
AT_ONCE = 1 * MB  #: bytes; a larger body is sent once S3 has agreed to take it
BULK = 1000  #: most objects that one request may delete
POOL = 512  #: idle connections that are kept: the largest WORKER_CONCURRENCY

#: Statuses with which servers refuse a bulk delete's checksum: bad request, length required, not implemented.
_CHECKSUM_REFUSED = (400, 411, 501)
#: Error codes of servers for a full bucket. The status 507 means the same.
FULL_CODES = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
#: Statuses and codes of requests that may succeed when they are retried, besides statuses of 500 and more.
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
#: Hints for the operator, by error code. We show these and not the server's message, because that may contain keys.
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
    """A boto3 client for all threads of the process. boto3 finds values that are not set in its usual places."""
    from boto3 import Session
    from botocore.config import Config

    from storage.scratch.s3_clock import correct_clock

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
        user_agent=USER_AGENT,  # boto3 puts its own together anew for each request, which took a tenth of its time
        # Some S3-compatible servers do not support Amazon's newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = session.client("s3", endpoint_url=settings.s3_endpoint_url or None, config=config)
    client.meta.events.register_last("before-call.s3", _send_at_once)
    correct_clock(client)
    return client


def _send_at_once(*, params: dict[str, Any], **_: object) -> None:
    """Sends a small body without asking first whether S3 would take it (Expect: 100-continue), which is one more trip."""
    from botocore.utils import determine_content_length

    size = determine_content_length(params["body"]) if "Expect" in params["headers"] else None
    if size is not None and size <= AT_ONCE:
        del params["headers"]["Expect"]


class S3Scratch:
    """Stores each scratch object as one object of the bucket, with `prefix` before its key. It ignores other objects.

    Raises FileNotFoundError only for a missing object. All other errors are Transient or Permanent, and their texts say what to
    check. An operator can fix keys, buckets and regions while jobs wait. So errors caused by them are Transient, with a notice.
    """

    def __init__(self, connect: Callable[[], Any], *, bucket: str, prefix: str = "", own_endpoint: bool = False) -> None:
        """`connect`: makes the boto3 client. `own_endpoint`: its endpoint was given, so an object's URL is the endpoint, bucket and key."""
        self._connect = connect
        self._own_endpoint = own_endpoint
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._made: Any = None
        self._quick: QuickRequests | None = None
        self._with_md5 = False

    def put(self, key: str, body: IO[bytes]) -> None:
        place = {"Bucket": self._bucket, "Key": self._name(key)}
        size = body.seek(0, 2)
        body.seek(0)
        with self._told("put"):
            client = self._client
            if size <= WHOLE:
                data = body.read()
                quick = self._quick if size <= AT_ONCE else None
                done = quick.put(place["Key"], data) if quick else None
                if not done:
                    client.put_object(**place, ContentType=CONTENT_TYPE, Body=data)
                    if quick and done is False:
                        quick.put_missed()
            elif size <= IN_PARTS:
                client.put_object(**place, ContentType=CONTENT_TYPE, Body=body)
            else:
                from boto3.s3.transfer import TransferConfig

                # Without threads, only one part at a time is in memory.
                parts = TransferConfig(multipart_threshold=IN_PARTS, multipart_chunksize=PART, use_threads=False)
                client.upload_fileobj(body, **place, ExtraArgs={"ContentType": CONTENT_TYPE}, Config=parts)

    def open(self, key: str) -> IO[bytes]:
        name = self._name(key)
        file = tempfile.SpooledTemporaryFile(max_size=WHOLE)  # noqa: SIM115 - the caller's to close
        try:
            with self._told("open", key):
                client, quick = self._client, self._quick
                done = quick.get(name, file) if quick else None
                if not done:
                    answer = client.get_object(Bucket=self._bucket, Key=name)
                    with closing(answer["Body"]) as body:
                        shutil.copyfileobj(body, file, PIECE)
                    if quick and done is False:
                        quick.get_missed()
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
        for _, found in self._listed(prefix):
            for key, _ in found:
                yield key

    def ages(self, prefix: str) -> Iterator[tuple[str, float]]:
        for answer, found in self._listed(prefix):
            now = parsedate_to_datetime(answer["HTTPHeaders"]["date"])
            for key, stored in found:
                yield key, (now - stored).total_seconds()

    def _listed(self, prefix: str) -> Iterator[tuple[Any, Iterator[tuple[str, datetime]]]]:
        """Of each page of the list: what S3 says of its answer, and each key with the time when its object was stored."""
        with self._told("list"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                found = ((each["Key"].removeprefix(self._prefix), each["LastModified"]) for each in page.get("Contents", ()))
                yield page["ResponseMetadata"], ((key, stored) for key, stored in found if SAFE_KEY.fullmatch(key))

    def abort_uploads(self, seconds: float) -> int:
        """Ages are counted by the clock of S3, which is in its answers. Each upload is one more request, so few are expected."""
        aborted = 0
        with self._told("list uploads"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for upload in page.get("Uploads", ()):
                    ours = SAFE_KEY.fullmatch(upload["Key"].removeprefix(self._prefix))
                    if ours and (now - upload["Initiated"]).total_seconds() > seconds:
                        self._abort(upload["Key"], upload["UploadId"])
                        aborted += 1
        return aborted

    def _abort(self, name: str, upload: str) -> None:
        with suppress(self._client.exceptions.NoSuchUpload):  # it was finished or aborted meanwhile
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)

    def _delete(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Sends one bulk delete. Gives the key and error code of each object that could not be deleted.

        A server may refuse boto3's checksum and require the older Content-MD5. Then the request is repeated with Content-MD5, and
        later requests use it from the start.
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
        """The client. It is made at the first use, because forked processes must not share connections."""
        with self._lock:
            if self._made is None:
                made = self._connect()
                made.meta.events.register("before-sign.s3.DeleteObjects", self._checksum)
                self._quick = quick_requests(made, bucket=self._bucket) if self._own_endpoint else None
                self._made = made
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
        """Translates boto3's errors to the port's. It leaves boto3's texts out, because they may contain keys and signed URLs."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            with os_errors():  # for errors of the temporary file
                yield
        except ClientError as error:
            raise self._refused(error, action, key) from None
        except (BotoCoreError, HTTPError) as error:
            raise self._failed(error) from None

    def _refused(self, error: Any, action: str, key: str) -> PartError | FileNotFoundError:
        """Translates an error answer of S3."""
        status, code = _status(error), _plain(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            return not_allowed(
                f"There is no bucket {self._bucket} at {self._place}. Make it, or look at SCRATCH_URL and S3_ENDPOINT_URL."
            )
        if key and code == "NoSuchKey":  # no other 404: a proxy may send 404 while the server is down
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
        """Translates a request that got no answer, or an answer that is not S3's."""
        from botocore import exceptions as of

        what = type(error).__name__
        if isinstance(error, (of.NoCredentialsError, of.PartialCredentialsError, of.CredentialRetrievalError)):
            return not_allowed("S3 needs a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SECRET_ACCESS_KEY_FILE).")
        if isinstance(error, (of.ConnectionError, of.HTTPClientError, of.IncompleteReadError)) or not isinstance(
            error, of.BotoCoreError
        ):
            return Transient(f"No S3 server can be reached at {self._place} ({what}). Look at S3_ENDPOINT_URL.")
        if isinstance(error, of.ParamValidationError):  # boto3 refused to send it: a bug of ours
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
    """An error code with only letters and digits, at most 64 of them, as Amazon's codes have."""
    return re.sub(r"[^A-Za-z0-9]", "", code)[:64]
