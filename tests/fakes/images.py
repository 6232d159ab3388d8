"""Fetching and decoding without a network or a child process."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

from pipeline.ports import TotalTooLarge
from pipeline.types import Failure, Fetched, ItemCode, Prepared, Refused


class FakeFetch:
    """Knows the bytes behind URLs; any other URL fails."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.fetched: list[str] = []

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        received = 0
        for index, url in urls:
            self.fetched.append(url)
            if url not in self.pages:
                yield Failure(index=index, code=ItemCode.FETCH_FAILED, detail="The image could not be fetched.")
            elif received + len(self.pages[url]) > total:
                raise TotalTooLarge
            else:
                received += len(self.pages[url])
                yield Fetched(index=index, data=self.pages[url])


def fake_decode(pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
    """Takes bytes that begin with `img` for a picture. What stands in them behind a `#` is its note."""
    yield from map(_decoded, pictures)


def _decoded(data: bytes) -> Prepared | Refused:
    if not data:
        return Refused(code=ItemCode.IMAGE_EMPTY, detail="There are no bytes in this image.")
    if not data.startswith(b"img"):
        return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail="This is not an image.")
    return Prepared(data=data, mime="image/png", width=1, height=1, source_format="PNG", note=data.partition(b"#")[2].decode())
