"""Attacks of one account, and how long the requests of another account take meanwhile."""

from __future__ import annotations

import base64
import json
import queue
import resource
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from testbed import Behaviour, FakeGemini, PictureServer, SeenCall, Service, numbered_picture, pictures

IMAGES, JOBS, HOOKS = 7, 3, 5  #: requests of each kind, of which the median counts
URLS = 200  #: images of the victim's job
RUNS = 3  #: of an attack, at most
#: Seconds. An idle time below this counts as this. Idle requests take 0.04 s on two cores, and the attacks that need CPU take their
#: share of it, as any requests do. Without the safeguards the attacks cost 5 s and more.
FLOOR = {"one image": 0.3, "200 URLs": 1.0, "webhook": 0.3}
#: The attacks that are also run on production's parts, because a database, a queue or a store of their own bears them there.
IN_PRODUCTION = (
    "schemas that take long to check",
    "names whose server never answers",
    "receivers of webhooks that never answer",
    "texts that fill the database",
    "waits",
    "image servers that never answer",
)
ASYNC = {"Prefer": "respond-async"}
ATTACK = "this is an attack"  #: the prompt of the attacker's jobs
NULLS = {"anyOf": [{"type": "null"}] * 1900}
#: The fields that `serving` and `production` need beside their own.
SETTINGS = {"RATE_LIMIT": "1000000/minute", "WEBHOOK_ALLOW": "127.0.0.1/32:*", "FETCH_ALLOW": "127.0.0.1/32:*"}


def one_image(number: int = 5) -> dict[str, Any]:
    return {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(number)).decode()], "prompt": "p"}


class Receiver(ThreadingHTTPServer):
    """Takes webhooks, and puts the job of each into `arrived`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.arrived: queue.Queue[str] = queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.arrived.put(event["data"]["id"])

    def log_message(self, *_: object) -> None:
        """Logs nothing, to keep pytest's output readable."""


class Silent:
    """A server that takes every connection and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._taken:
            connection.close()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A service, the world around it, and two accounts."""

    victim: Service
    attacker: Service
    fake: FakeGemini
    web: PictureServer
    receiver: Receiver

    def seconds(self) -> dict[str, float]:
        """The median times of the victim's requests."""
        kinds = {"one image": (IMAGES, self._one_image), "200 URLs": (JOBS, self._job), "webhook": (HOOKS, self._webhook)}
        return {name: median(_timed(ask) for _ in range(times)) for name, (times, ask) in kinds.items()}

    def _one_image(self) -> None:
        status, _, answer = self.victim.extract(one_image())
        assert status == 200, answer

    def _job(self) -> None:
        port = self.web.server_port
        urls = [f"http://{number % 8}.here.example:{port}/{number}.png" for number in range(URLS)]
        status, headers, answer = self.victim.extract({"inputMethod": "url", "images": urls, "prompt": "p"}, ASYNC)
        assert status == 202, answer
        assert self.victim.follow(headers["location"])["counts"]["succeeded"] == URLS

    def _webhook(self) -> None:
        status, _, answer = self.victim.extract({**one_image(), "webhookUrl": self.receiver.url}, ASYNC)
        assert status == 202, answer
        assert self.receiver.arrived.get(timeout=120) == answer["id"]

    def attack(self, body: dict[str, Any], times: int = 1) -> list[str]:
        """Sends the attacker's job so often. Returns the jobs that were accepted."""
        data = json.dumps({"prompt": ATTACK, **body}).encode()
        answers = [self.attacker.extract(data, ASYNC) for _ in range(times)]
        assert {status for status, *_ in answers} <= {202, 400, 429}, answers
        return [headers["location"] for status, headers, _ in answers if status == 202]

    def cancel(self, jobs: list[str]) -> None:
        for job in jobs:
            assert self.attacker.send("POST", f"{job}/cancel")[0] in (200, 409)


def _timed(ask: Callable[[], None]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


@contextmanager
def scene(victim: Service, key: str, fake: FakeGemini) -> Iterator[Scene]:
    """`key`: of the account that attacks."""
    with ExitStack() as stack:
        web = stack.enter_context(pictures())
        for number in range(URLS):
            web.page(f"{number}.png", numbered_picture(number))
        receiver = Receiver()
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        stack.callback(thread.join)
        stack.callback(receiver.server_close)
        stack.callback(receiver.shutdown)
        attacker = Service(victim.folder, victim.process, victim.url, key)
        made = Scene(victim=victim, attacker=attacker, fake=fake, web=web, receiver=receiver)
        made.seconds()  # warms the service up
        yield made


@contextmanager
def repeated(act: Callable[[], None], threads: int = 2) -> Iterator[None]:
    """Acts again and again in threads while the block runs. It has acted once in each when the block begins."""
    stop, begun = threading.Event(), threading.Semaphore(0)

    def go_on() -> None:
        while not stop.is_set():
            act()
            begun.release()

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(go_on) for _ in range(threads)]
        try:
            for _ in running:
                assert begun.acquire(timeout=60)
            yield
        finally:
            stop.set()
        for each in running:
            each.result()


@contextmanager
def connections(service: Service, kinds: Iterable[tuple[int, bytes]]) -> Iterator[list[socket.socket]]:
    """Opens so many connections that each send the bytes, and then a byte now and then, and that read nothing."""
    address = urlsplit(service.url)
    with ExitStack() as stack:
        opened: list[socket.socket] = []
        for count, data in kinds:
            for _ in range(count):
                connection = stack.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(20)
                connection.connect((address.hostname or "", address.port or 0))
                with suppress(ConnectionError):
                    connection.sendall(data)
                opened.append(connection)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.5):
                for connection in opened:
                    with suppress(OSError):
                        connection.send(b"x", socket.MSG_DONTWAIT)

        thread = threading.Thread(target=drip)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield opened


@contextmanager
def many_files() -> Iterator[None]:
    """Lets processes hold as many connections as the attacks open. A shell often allows 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def request(line: str, *headers: str, then: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode() + then


# The attacks of docs/explanation/what-one-user-can-do.md.


@contextmanager
def strangers_connections(scene: Scene) -> Iterator[None]:
    large = request("POST /api/v1/extract-image", "Content-Length: 150000000", then=b"{")
    with connections(scene.attacker, [(300, large), (300, b""), (100, b"GET /healthz HTTP/1.1\r\nX-Slow: ")]):
        yield


@contextmanager
def schemas(scene: Scene) -> Iterator[None]:
    def answer(call: SeenCall) -> Behaviour | None:
        if ATTACK not in "".join(call.prompt):
            return None
        return Behaviour(records=lambda records: [{**record, "values": [1] * 2000} for record in records])

    schema = {"type": "object", "properties": {"values": {"type": "array", "items": NULLS}}, "required": ["values"]}
    body = {**one_image(), "schema": schema}
    scene.fake.script = answer
    jobs = scene.attack(body, times=6)

    def again() -> None:
        sent = scene.attack(body)
        jobs.extend(sent)
        for job in sent:
            scene.attacker.follow(job)

    try:
        # One at a time, because accepting such a schema and asking the fake takes 0.2 s of CPU, which any request may take.
        with repeated(again, threads=1):
            yield
    finally:
        scene.fake.script = None
        scene.cancel(jobs)


@contextmanager
def hanging_lookups(scene: Scene) -> Iterator[None]:
    jobs: list[str] = []
    for job in range(6):
        urls = [f"http://a.{job}-{number}.silent.example/" for number in range(200)]
        urls += [f"http://a{number}.{job}.silent.example/" for number in range(100)]
        jobs += scene.attack({"inputMethod": "url", "images": urls})
    assert len(jobs) == 6
    yield
    scene.cancel(jobs)


@contextmanager
def hanging_webhooks(scene: Scene) -> Iterator[None]:
    with closing(Silent()) as silent:
        bodies = [{**one_image(), "webhookUrl": f"http://{number % 9}.here.example:{silent.port}/"} for number in range(90)]
        jobs = [job for body in bodies for job in scene.attack(body)]
        assert len(jobs) > 50
        for job in jobs:
            scene.attacker.follow(job)
        yield


@contextmanager
def stored_bytes(scene: Scene) -> Iterator[None]:
    long = "http://a.here.example/" + "x" * 10_000_000
    bodies = [
        json.dumps({"inputMethod": "url", "images": [long], "prompt": ATTACK}).encode(),
        json.dumps({**one_image(), "prompt": "x" * 10_000_000}).encode(),
    ]

    def again() -> None:
        for body in bodies:
            assert scene.attacker.extract(body, ASYNC)[0] in (202, 400, 413, 429)

    with repeated(again, threads=1):
        yield


@contextmanager
def slow_large_bodies(scene: Scene) -> Iterator[None]:
    keyed = (f"Authorization: Bearer {scene.attacker.key}", "Content-Type: application/json")
    with connections(
        scene.attacker, [(40, request("POST /api/v1/extract-image", "Content-Length: 90000000", *keyed, then=b"{"))]
    ):
        yield


@contextmanager
def waiting_places(scene: Scene) -> Iterator[None]:
    with closing(Silent()) as silent:
        [job] = scene.attack({"inputMethod": "url", "images": [f"http://127.0.0.1:{silent.port}/{n}" for n in range(40)]})
        keyed = (f"Authorization: Bearer {scene.attacker.key}",)
        with connections(scene.attacker, [(700, request(f"GET {job}?wait=300", *keyed))]):
            yield
        scene.cancel([job])


@contextmanager
def slow_image_servers(scene: Scene) -> Iterator[None]:
    with closing(Silent()) as silent:
        jobs: list[str] = []
        for job in range(8):
            urls = [f"http://{number % 30}.here.example:{silent.port}/{job}/{number}" for number in range(150)]
            jobs += scene.attack({"inputMethod": "url", "images": urls})
        yield
        scene.cancel(jobs)


@contextmanager
def pictures_of_many_chunks(scene: Scene) -> Iterator[None]:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 3 * 4))))
    picture = b"\x89PNG\r\n\x1a\n" + head + chunk(b"abCd", b"") * 400_000 + pixels + chunk(b"IEND", b"")
    urls = [f"{scene.web.page(f'chunks-{n}.png', picture + bytes([n]))}" for n in range(4)]
    body = {"inputMethod": "url", "images": urls}

    def again() -> None:
        for job in scene.attack(body):
            scene.attacker.follow(job)

    with repeated(again, threads=2):
        yield


ATTACKS: dict[str, Callable[[Scene], Any]] = {
    "a stranger's connections": strangers_connections,
    "schemas that take long to check": schemas,
    "names whose server never answers": hanging_lookups,
    "receivers of webhooks that never answer": hanging_webhooks,
    "texts that fill the database": stored_bytes,
    "large bodies that arrive slowly": slow_large_bodies,
    "waits": waiting_places,
    "image servers that never answer": slow_image_servers,
    "pictures of many chunks": pictures_of_many_chunks,
}


def assert_not_slowed(scene: Scene, attack: str, idle: dict[str, float]) -> None:
    """Runs the attack. Fails if the victim's requests take more than twice as long as without it, in each of three runs.

    `idle`: the times without an attack. They are measured anew before each further run, because the machine may be busier then.
    Other work on the machine can only make a run slower, so one good run shows that the attack takes no time.
    """
    runs = []
    for number in range(RUNS):
        if number:
            again = scene.seconds()
            idle = {name: max(idle[name], again[name]) for name in idle}
        with ATTACKS[attack](scene):
            during = scene.seconds()
        if _within(during, idle):
            return
        runs.append((idle, during))
    raise AssertionError(attack, runs)


def _within(during: dict[str, float], idle: dict[str, float]) -> bool:
    return all(during[name] <= 2 * max(idle[name], FLOOR[name]) for name in during)
