"""Fetches up to 3000 images from small web servers. Counts the lost images, and compares the time with a perfect client's.

Each server runs in its own process. `python`: Python's ThreadingHTTPServer, whose listen queue has 5 places. `queue of 1`: a
server that needs 50 ms for each image, handles one image at a time, and has a listen queue of 1. `queue of 1, threads`: the same
with a thread for each connection. `resets`: a server that resets every tenth connection. All of them close a connection after one
answer, as small servers do.

The perfect client has a fixed number of threads with one connection each, and retries at once when a connection breaks. Its time
is the shortest of several numbers of threads (2, 3, 8 and 24, or fewer for servers where some are never best). The two clients
take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

from bench.report import Row, at_most, print_report, spread
from bench.web import SIZE, beside
from pipeline.fetch.fetcher import Fetcher
from pipeline.outbound.addresses import parse_allow
from pipeline.plan import cut
from pipeline.types import MAX_TOTAL_BYTES, Fetched

CHUNK = 50
BODY = bytes(range(256)) * (SIZE // 256)
RESET = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER: on, no seconds


class Page(BaseHTTPRequestHandler):
    """Answers each path with the same bytes."""

    work = 0.0  #: seconds before each answer

    def do_GET(self) -> None:
        time.sleep(self.work)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


class WorkingPage(Page):
    work = 0.05


class Quiet:
    """Prints no tracebacks, because this bench makes clients give up on purpose."""

    def handle_error(self, *_: object) -> None:
        pass


class Threads(Quiet, ThreadingHTTPServer):
    pass


class Resetting(Threads):
    """Resets every tenth connection before it reads the request."""

    accepted = 0

    def verify_request(self, request: socket.socket | tuple[bytes, socket.socket], _address: object) -> bool:
        self.accepted += 1
        if self.accepted % 10 == 0 and isinstance(request, socket.socket):
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            request.close()
            return False
        return True


class QueueOfOne(Quiet, HTTPServer):
    request_queue_size = 1


class QueueOfOneThreads(Threads):
    request_queue_size = 1


#: name → server, page, number of images, numbers of threads to try for the perfect client
SERVERS: dict[str, tuple[Callable[..., HTTPServer], type[Page], int, Sequence[int]]] = {
    "python": (Threads, Page, 3000, (2, 3, 8, 24)),
    "queue of 1": (QueueOfOne, WorkingPage, 3000, (2,)),
    "queue of 1, threads": (QueueOfOneThreads, WorkingPage, 3000, (8, 24)),
    "resets": (Resetting, Page, 3000, (2, 3, 8, 24)),
}


def serve(name: str) -> None:
    make, page, *_ = SERVERS[name]
    server = make(("127.0.0.1", 0), page)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


def ours(port: int, images: int) -> tuple[float, int]:
    """The seconds and the lost images of a new Fetcher. As many threads use it as a worker has."""
    fetch = Fetcher(parse_allow(f"127.0.0.1/32:{port}"))
    urls = [(number, f"http://127.0.0.1:{port}/{number}.jpg") for number in range(images)]

    def chunk(part: Sequence[tuple[int, str]]) -> int:
        return sum(isinstance(value, Fetched) for value in fetch(part, total=MAX_TOTAL_BYTES, timeout=600.0))

    started = time.perf_counter()
    with ThreadPoolExecutor(40) as threads:
        good = sum(threads.map(chunk, [urls[plan.first : plan.first + plan.count] for plan in cut(images, CHUNK)]))
    spent = time.perf_counter() - started
    fetch.close()
    return spent, images - good


def perfect(port: int, images: int, threads: int) -> float:
    """The seconds of the perfect client with `threads` connections."""

    def get(number: int) -> int:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            try:
                connection.request("GET", f"/{number}.jpg")
                return len(connection.getresponse().read())
            except OSError:
                continue
            finally:
                connection.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(get, range(images))) == images * len(BODY)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=list(SERVERS))
    parser.add_argument("--serve", choices=list(SERVERS), help="be that server, until standard input ends")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    rows: list[Row] = []
    for name, (_, _, images, numbers) in SERVERS.items():
        if options.only not in (None, name):
            continue
        lost, ratios, seconds, best = 0, [], [], []
        with beside("bench.small_servers", "--serve", name) as port:
            for _ in range(options.runs):
                spent, missing = ours(int(port), images)
                seconds.append(spent)
                lost += missing
                best.append(min(perfect(int(port), images, threads) for threads in numbers))
                ratios.append(spent / best[-1])
        rows += [
            (f"{name}: {images} images, lost", str(lost), "0"),
            (f"{name}: ours", spread(seconds, "s"), ""),
            (f"{name}: perfect client", spread(best, "s"), ""),
            (f"{name}: ours / perfect client, run by run", spread(ratios, "x"), at_most(1.3)),
        ]
    print_report(f"Small servers, images of {SIZE / 1000:.0f} KB, {options.runs} runs", rows)


if __name__ == "__main__":
    main()
