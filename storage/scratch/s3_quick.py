"""Puts and gets of whole objects with few steps of boto3's.

For each request boto3 checks parameters, resolves the endpoint by rules, calls its hooks, and parses the answer by its model of S3. That
takes more of a small request's time than signing and sending. Here an object's URL is put together from the endpoint, which only
a server with its own S3_ENDPOINT_URL allows. botocore's signer and its session of HTTP do the rest, with the client's credentials, clock,
certificates, proxies and connections.

Only success is handled here. Whatever else S3 answers, the caller asks again with boto3, which repeats, and knows all errors.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import IO, Any
from urllib.parse import quote

from pipeline.types import MB

PIECE = 1 * MB  #: bytes read at a time
#: SeaweedFS tries whether an object of an unknown type gets smaller when it is compressed, which takes time and is in vain for images.
CONTENT_TYPE = "image/x-pack"


class QuickRequests:
    """Requests with the parts of a boto3 client. Thread-safe."""

    def __init__(self, client: Any, *, bucket: str) -> None:
        self._objects = f"{client.meta.endpoint_url.rstrip('/')}/{quote(bucket)}/"
        self._signer = client._request_signer  # noqa: SLF001 - tests notice if a new botocore has it elsewhere
        self._session = client._endpoint.http_session  # noqa: SLF001

    def put(self, name: str, data: bytes) -> bool:
        """Stores the object. Returns whether S3 has said that it did."""
        answer = self._send("PutObject", "PUT", name, data)
        return answer is not None and answer.status_code == 200 and not answer.content  # a web server sends a page

    def get(self, name: str, into: IO[bytes]) -> bool:
        """Writes the object to `into`. Returns whether it did; if not, nothing was written.

        Raises an error of botocore or urllib3 if the answer breaks off.
        """
        from botocore.response import StreamingBody

        answer = self._send("GetObject", "GET", name)
        if answer is None:
            return False
        with closing(StreamingBody(answer.raw, answer.headers.get("content-length"))) as body:  # it checks the length
            if answer.status_code != 200:
                return False
            shutil.copyfileobj(body, into, PIECE)
        return True

    def _send(self, operation: str, method: str, name: str, data: bytes | None = None) -> Any:
        """The answer of S3, None if there is none. Raises botocore's errors if it takes too long: asking again would take as long."""
        from botocore import exceptions as of
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(
            method=method,
            url=self._objects + quote(name, safe="/~"),
            headers={"User-Agent": "extract-image", **({} if data is None else {"Content-Type": CONTENT_TYPE})},
            data=data,
            stream_output=data is None,
        )
        self._signer.sign(operation, request)
        try:
            return self._session.send(request.prepare())
        except (of.ConnectTimeoutError, of.ReadTimeoutError):
            raise
        except (of.ConnectionError, of.HTTPClientError):
            return None
