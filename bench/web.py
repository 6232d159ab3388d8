"""A web server with 3000 pictures, at `GET /<number>.jpg`. It runs in its own process and uses little CPU.

`python -m bench.web photos` prints its port, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image

from testbed import ROOT, numbered_picture

IMAGES, SIZE, LATENCY = 3000, 33_000, 0.05  #: number of pictures; bytes of a photo; seconds from a request to its answer


class Web(asyncio.Protocol):
    """One connection. It answers each request after LATENCY."""

    def __init__(self, pages: Sequence[bytes]) -> None:
        self._pages = pages
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            page = self._pages[int(head.split(b" ")[1][1:-4])]
            asyncio.get_running_loop().call_later(LATENCY, self._answer, page)

    def _answer(self, page: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(page)
        self._transport.write(head + page)


def photos() -> list[bytes]:
    """Different JPEGs with about as much detail as real photos of SIZE bytes, padded to SIZE."""
    pixels = np.random.default_rng(1).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((480, 360), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(2).normal(0, 6, (360, 480, 3))
    out = BytesIO()
    Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=70)
    body = out.getvalue()
    assert SIZE * 0.8 < len(body) < SIZE, len(body)
    made = []
    for number in range(IMAGES):
        comment = str(number).encode().ljust(SIZE - len(body) - 4)
        made.append(body[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + body[2:])
    return made


def numbered() -> list[bytes]:
    """JPEGs that show a number, which the fake model reads."""
    return [numbered_picture(number, format="JPEG", pad_to=30_000) for number in range(IMAGES)]


def large() -> list[bytes]:
    """Different JPEGs of 12 megapixels and about 2 MB. To decode one takes far longer than to fetch it."""
    pixels = np.random.default_rng(1).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).resize((4000, 3000), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
    body = out.getvalue()
    return [body[:2] + b"\xff\xfe\x00\x06" + f"{number:04d}".encode() + body[2:] for number in range(40)]


async def serve(pages: Sequence[bytes]) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Web(pages), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def beside(*module: str) -> Iterator[str]:
    """Runs `python -m` with these arguments in a process. Gives the first line that the process prints.

    At the end of the block it closes the process's standard input, so the process ends.
    """
    command = [sys.executable, "-m", *module]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextmanager
def web(pages: str) -> Iterator[int]:
    """Runs a web server with `photos`, `numbered` or `large` pictures. Gives its port."""
    with beside("bench.web", pages) as port:
        yield int(port)


if __name__ == "__main__":
    asyncio.run(serve({"photos": photos, "numbered": numbered, "large": large}[sys.argv[1]]()))
