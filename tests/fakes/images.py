"""Fetches and decodes without a network or a child process. tests/contract/ tests these and the real parts with one suite."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from pipeline.outbound.addresses import read_url
from pipeline.ports import TotalTooLarge
from pipeline.types import Failure, Fetched, ItemCode, Prepared, Refused

#: A picture that ends with this kills the decoder of `fake_decode`.
KILLER = b"!crash"


class FakeFetch:
    """Implements pipeline.ports.Fetch. `pages` has the bytes of each URL. All other URLs fail.

    It does not wait: a URL in `silent` fails with a timeout as soon as the other URLs are done.
    """

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.silent: set[str] = set()  #: URLs whose server never answers
        self.fetched: list[str] = []
        self.under_way: list[str] = []  #: URLs that are being fetched now

    def __call__(self, urls: Iterable[tuple[int, str]], *, total: int, timeout: float) -> Iterator[Fetched | Failure]:
        received = 0
        late: list[tuple[int, str]] = []
        try:
            for index, url in urls:
                if isinstance(refused := read_url(url, ()), str):
                    yield Failure(index=index, code=ItemCode.URL_NOT_ALLOWED, detail=refused)
                    continue
                self.fetched.append(url)
                if url in self.silent:
                    late.append((index, url))
                    self.under_way.append(url)
                elif url not in self.pages:
                    yield Failure(index=index, code=ItemCode.FETCH_FAILED, detail="The image could not be fetched.")
                elif not self.pages[url]:
                    yield Failure(index=index, code=ItemCode.IMAGE_EMPTY, detail="The server sent no bytes for this image.")
                elif received + len(self.pages[url]) > total:
                    raise TotalTooLarge
                else:
                    received += len(self.pages[url])
                    yield Fetched(index=index, data=self.pages[url])
            for index, _ in late:
                yield Failure(index=index, code=ItemCode.FETCH_TIMEOUT, detail=f"The image did not come within {timeout:g} s.")
        finally:
            for _, url in late:
                self.under_way.remove(url)


def _mime_of(data: bytes) -> str | None:
    return "image/png" if data.startswith(b"img") else None


def fake_decode(
    pictures: Sequence[bytes], *, mime_of: Callable[[bytes], str | None] = _mime_of, size: tuple[int, int] = (1, 1)
) -> Generator[Prepared | Refused]:
    """Implements pipeline.ports.Decode. It accepts bytes that begin with `img` as a picture.

    `mime_of`: another rule; it gives the type of a picture, and None for other bytes. `size`: width and height in pixels that it
    reports for every picture.
    """
    for data in pictures:
        yield _decoded(data, mime_of(data), size)


def _decoded(data: bytes, mime: str | None, size: tuple[int, int]) -> Prepared | Refused:
    if not data:
        return Refused(code=ItemCode.IMAGE_EMPTY, detail="There are no bytes in this image.")
    if mime is None:
        return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail="This is not an image.")
    if data.endswith(KILLER):
        return Refused(code=ItemCode.IMAGE_CRASHED_DECODER, detail="Decoding the image crashed the decoder.")
    width, height = size
    return Prepared(
        data=data,
        mime=mime,
        width=width,
        height=height,
        source_format="PNG",
        note=data.partition(b"#")[2].decode("latin-1") if data.startswith(b"img") else "",
    )
