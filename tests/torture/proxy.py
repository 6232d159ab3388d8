"""A TCP proxy that misbehaves on command, in its own process: `python -m tests.torture.proxy`.

The first line of its standard input is {name: target}. A target is a port of loopback or the path of a Unix socket. A name is
`process/part`, because each process has proxies of its own. The proxy answers with {name: port}. Each later line is {"scope",
"mode"}: a scope is a part, whose proxies are meant for all processes, or a process, all of whose proxies are meant. The answer is
{"hits"}: how many pieces or connections the modes of that scope have met so far. The modes are:

pass           forwards
cut            resets every connection, then forwards
refuse         resets every connection, and every new one at once
stall          forwards nothing and closes nothing, so that connections are half-open
slow           forwards each piece 0.2 s late
lose commits   forwards some COMMITs, and resets the connection when the server's answer is there, without forwarding it
refuse commits resets some connections instead of forwarding their COMMIT
full           answers each HTTP PUT as a bucket that is full
unavailable    answers each HTTP request with 503
undeletable    answers each HTTP request to delete objects with an error for each object
silent         open connections stay open but forward nothing for ever; new connections are forwarded
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import sys
from collections import Counter
from typing import Any

SLOW_SECONDS = 0.2
PIECE = 1 << 16
COMMIT = b"COMMIT\x00"  #: a query, as the driver sends it
CUT_SHARE = 0.2  #: the share of the COMMITs that are cut while it lasts
CUT_AT = {"cut", "refuse", "unavailable", "full"}
FULL = b"<Error><Code>QuotaExceeded</Code><Message>The bucket is full.</Message></Error>"
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
UNAVAILABLE = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NOT_DELETED = b"<Error>%s<Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
KEY = re.compile(rb"<Key>[^<]*</Key>")
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


HITS: Counter[str] = Counter()  #: scope → how often its modes took effect


class Proxy:
    """One listener and its connections."""

    def __init__(self, target: int | str) -> None:
        self.target = target
        self.modes: dict[str, str] = {}  #: scope → its mode, without those that pass
        self.resumed = asyncio.Event()
        self.resumed.set()
        self.silences = 0  #: how often the mode "silent" was set
        self.open: set[asyncio.StreamWriter] = set()

    @property
    def mode(self) -> str:
        return next(iter(self.modes.values()), "pass")

    def hit(self) -> None:
        HITS.update(list(self.modes)[:1])

    def become(self, scope: str, mode: str) -> None:
        was = self.modes.pop(scope, "pass")
        if mode not in {"cut", "silent", "pass"}:
            self.modes[scope] = mode
        self.silences += mode == "silent"
        if mode in CUT_AT or was == "stall":  # stalled connections are not resumed
            HITS[scope] += len(self.open)
            for writer in list(self.open):
                reset(writer)
        if "stall" in self.modes.values():
            self.resumed.clear()
        else:
            self.resumed.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            self.hit()
            reset(writer)
            return
        self.open.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "unavailable":
            self.hit()
            await reader.read(PIECE)
            await answer(writer, b"503 Slow Down", UNAVAILABLE)
            return
        if isinstance(self.target, int):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        else:
            there, back = await asyncio.open_unix_connection(self.target)
        self.open.add(back)
        since = self.silences
        lost = asyncio.Event()  # set when the answer to a COMMIT must not come back
        try:
            ways = [
                asyncio.create_task(self._pump(reader, back, since, lost, client=writer)),
                asyncio.create_task(self._pump(there, writer, since, lost)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self.open.discard(back)
            reset(back)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        since: int,
        lost: asyncio.Event,
        *,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        """Forwards from `source` to `sink`. `client`: set for data from the client; the proxy's own answers go there."""
        while piece := await source.read(PIECE):
            if self.mode == "slow":
                self.hit()
                await asyncio.sleep(SLOW_SECONDS)
            if self.silences > since:
                await asyncio.Event().wait()
            if not self.resumed.is_set():
                self.hit()
                await self.resumed.wait()
            if not client and lost.is_set():  # the server has done the COMMIT, and its client never hears of it
                return
            line = piece.partition(b"\r\n")[0] if client else b""
            if client and self.mode == "undeletable" and piece.startswith(b"POST ") and b"?delete" in line:
                self.hit()
                await self._refuse_to_delete(source, piece, client)
                return
            if client and self.mode == "full" and piece.startswith((b"PUT ", b"POST ")) and b"?delete" not in line:
                self.hit()
                await answer(client, b"507 Insufficient Storage", FULL)
                return
            if client and COMMIT in piece and self.mode in {"lose commits", "refuse commits"} and random.random() < CUT_SHARE:
                self.hit()
                if self.mode == "refuse commits":
                    return
                lost.set()
            sink.write(piece)
            await sink.drain()

    async def _refuse_to_delete(self, source: asyncio.StreamReader, request: bytes, client: asyncio.StreamWriter) -> None:
        while b"\r\n\r\n" not in request:
            request += await source.read(PIECE)
        head, _, body = request.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        body += await source.readexactly(max(int(length[1]) - len(body), 0) if length else 0)
        errors = b"".join(NOT_DELETED % key for key in KEY.findall(body))
        await answer(client, b"200 OK", b"<DeleteResult>%s</DeleteResult>" % errors)


async def answer(client: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
    client.write(HEAD % status + body)
    await client.drain()
    client.write_eof()
    await asyncio.sleep(0.2)  # let the client read the answer before the reset


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a reset, as if the peer had died."""
    with contextlib.suppress(OSError, AttributeError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()


async def main() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    targets: dict[str, Any] = json.loads(await lines.readline())
    proxies = {name: Proxy(target) for name, target in targets.items()}
    servers = {name: await asyncio.start_server(proxy.accept, "127.0.0.1", 0) for name, proxy in proxies.items()}
    print(json.dumps({name: server.sockets[0].getsockname()[1] for name, server in servers.items()}), flush=True)  # noqa: T201
    while line := await lines.readline():
        order = json.loads(line)
        for name, proxy in proxies.items():
            if order["scope"] in name.split("/"):
                proxy.become(order["scope"], order["mode"]) if order["mode"] else None
        print(json.dumps({"hits": HITS[order["scope"]]}), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
