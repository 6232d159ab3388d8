"""REDIS_URL with TLS: rings, signals and rate limits go through a certificate that is verified."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import ConnectionError as RedisConnectionError

from storage.queue.ringing import Ring
from storage.redis.signals import CHANNEL, QUEUE, Signals
from tests.rows import eventually


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis.test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    return public, private


class TlsDoor:
    """Takes TLS connections on a free port and hands what they say to a Unix socket."""

    def __init__(self, unix_path: str, public: Path, private: Path) -> None:
        self._unix_path = unix_path
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(public, private)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            try:
                outside = self._context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                raw.close()
                continue
            inside = socket.socket(socket.AF_UNIX)
            inside.connect(self._unix_path)
            self._open += [outside, inside]
            for pair in ((outside, inside), (inside, outside)):
                thread = threading.Thread(target=self._pump, args=pair)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()


@pytest.fixture
def door(redis_url, tmp_path):
    public, private = certificate(tmp_path)
    opened = TlsDoor(redis_url.removeprefix("unix://"), public, private)
    yield opened, public
    opened.close()


def test_rings_signals_and_rates_go_over_tls(door):
    opened, public = door
    url = f"rediss://127.0.0.1:{opened.port}/0?ssl_ca_certs={public}"
    signals = Signals(url)
    try:
        before = signals.redis.llen(QUEUE)
        signals.ring([Ring(1, waited=False)])
        assert signals.redis.llen(QUEUE) == before + 1
        signals.redis.delete(QUEUE)
        with signals.watch("job_tls") as watch:
            eventually(lambda: signals.redis.pubsub_numsub(CHANNEL)[0][1] == 1)
            signals.tell("job_tls")
            assert watch.wait(20)
    finally:
        signals.close()
    limiter = SlidingWindowCounterRateLimiter(storage_from_string(url))
    assert limiter.hit(parse("1/minute"), "tls")
    assert not limiter.hit(parse("1/minute"), "tls")


def test_a_certificate_that_nobody_vouches_for_is_refused(door):
    opened, _ = door
    signals = Signals(f"rediss://127.0.0.1:{opened.port}/0")
    try:
        with pytest.raises(RedisConnectionError):
            signals.redis.ping()
    finally:
        signals.close()
