"""The guarded client: what it asks for, and what it can be made to ask for by names, addresses and redirects: nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import tomllib
from pathlib import Path

import pycurl
import pytest

from pipeline.outbound.addresses import Target, parse_allow
from pipeline.outbound.guard import USER_AGENT, GuardedCurl
from pipeline.types import Fetched, ItemCode
from tests.fakes import loopback_web
from tests.fakes.loopback_web import ALLOW, BODY, answer, is_failure, is_unreachable, one, redirect, run

serve, forbidden, make_fetcher = loopback_web.serve, loopback_web.forbidden, loopback_web.make_fetcher  # fixtures

# ---- what comes back


def test_each_url_gives_the_bytes_behind_it_under_its_own_index(serve, make_fetcher):
    server = serve({f"/{n}": answer(bytes([n]) * (n + 1)) for n in range(50)})
    results = run(make_fetcher(), *(f"http://host{n % 7}.test:{server.port}/{n}" for n in range(50)))
    assert results == [Fetched(index=n, data=bytes([n]) * (n + 1)) for n in range(50)]


def test_no_urls_give_no_values(make_fetcher):
    assert run(make_fetcher()) == []


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\nContent-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Encoding: gzip\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Encoding: Identity\r\n\r\nabcdef",
        b"HTTP/1.1 203 Non-Authoritative\r\ncontent-length:6\r\n\r\nabcdefghi",
    ],
)
def test_every_honest_framing_of_a_body_is_read(serve, make_fetcher, head):
    server = serve({"/": head})
    assert one(make_fetcher(), f"http://a.test:{server.port}/") == Fetched(index=0, data=b"abcdef")


@pytest.mark.parametrize("host", ["-a.test", "a-.test", "_a.test", "A.Test", "a.test.", "localhost", "0x7f.test"])
def test_a_name_is_asked_for_in_whatever_way_it_is_spelled(serve, make_fetcher, host):
    server = serve({"/": answer()})
    assert isinstance(one(make_fetcher(), f"http://{host}:{server.port}/"), Fetched)


def test_a_literal_address_of_the_setting_is_reached_without_a_lookup(serve, make_fetcher):
    server = serve({"/": answer()})
    fetcher = make_fetcher({"127.0.0.1": lambda: pytest.fail("looked up")})
    assert one(fetcher, f"http://127.0.0.1:{server.port}/") == Fetched(index=0, data=BODY)


def test_what_is_asked_names_us_and_wants_no_encoding_and_carries_nothing_else(serve, make_fetcher, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    server = serve({"/": answer(BODY, "200 OK", "Set-Cookie: a=b; Path=/")})
    fetcher = make_fetcher()
    for _ in range(2):
        assert isinstance(one(fetcher, f"http://a.test:{server.port}/?q#fragment"), Fetched)
    for request in server.requests:
        line, *headers = request.split("\r\n")
        assert line == "GET /?q HTTP/1.1"
        assert sorted(headers) == [
            "Accept-Encoding: identity",
            "Accept: image/*, */*;q=0.1",
            f"Host: a.test:{server.port}",
            f"User-Agent: {USER_AGENT}",
        ]


def test_the_user_agent_has_the_version_of_the_project():
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    assert version.startswith(USER_AGENT.removeprefix("extract-image/") + ".")


# ---- what may not be reached

REFUSED_ANSWERS = {
    "private": ["127.0.0.2"],
    "good first": ["127.0.0.1", "127.0.0.2"],
    "good last": ["127.0.0.2", "127.0.0.1"],
    "one bad IPv6": ["127.0.0.1", "::1"],
    "mapped": ["::ffff:127.0.0.1"],
    "zoned": ["fe80::1%lo"],
    "metadata": ["169.254.169.254"],
    "NAT64": ["64:ff9b::7f00:1"],
    "no address": ["127.0.0.1", "x"],
    "empty": [],
}


@pytest.mark.parametrize("answer_", REFUSED_ANSWERS.values(), ids=REFUSED_ANSWERS)
def test_one_bad_record_refuses_the_name_and_nothing_is_connected_to(make_fetcher, forbidden, serve, answer_):
    server = serve({"*": answer()})
    for port in (forbidden, server.port):
        assert is_unreachable(one(make_fetcher({"a.test": answer_}, parallel=4), f"http://a.test:{port}/"))
    assert server.connections == 0


def test_all_that_fails_before_a_connection_reads_the_same(make_fetcher, forbidden):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed_port = closed.getsockname()[1]
        names = {"none.test": no_such_name, "odd.test": lambda: 1 / 0, "blocked.test": ["127.0.0.2"]}
        results = run(
            make_fetcher(names),
            f"http://refused.test:{closed_port}/",
            f"http://127.0.0.1:{closed_port}/",
            f"http://none.test:{forbidden}/",
            f"http://odd.test:{forbidden}/",
            f"http://blocked.test:{forbidden}/",
            f"http://x.onion:{closed_port}/",
        )
    assert all(map(is_unreachable, results))


def no_such_name():
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


def test_a_server_that_never_takes_the_connection_reads_like_one_that_refuses(make_fetcher):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):  # fills the queue of connections nobody accepts
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        assert is_unreachable(one(make_fetcher(deadline=0.5), f"http://127.0.0.1:{listener.getsockname()[1]}/"))


def test_a_lookup_that_hangs_reads_like_a_name_that_is_none_and_holds_up_no_other(make_fetcher, serve):
    server = serve({"*": answer()})
    free = threading.Event()
    slow = {f"slow{n}.test": lambda: free.wait(30) and ["127.0.0.1"] for n in range(40)}
    urls = [f"http://{name}:{server.port}/" for name in slow]
    try:
        *stuck, good = run(make_fetcher(slow, deadline=0.5), *urls, f"http://good.test:{server.port}/")
    finally:
        free.set()
    assert all(map(is_unreachable, stuck))
    assert good == Fetched(index=40, data=BODY)


def test_a_name_that_changes_its_address_after_the_check_is_asked_only_at_the_checked_one(make_fetcher, serve, forbidden):
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]
    server = serve({"*": answer()})
    fetcher = make_fetcher({"a.test": lambda: answers.pop(0)})
    results = run(fetcher, *[f"http://a.test:{server.port}/{n}" for n in range(20)])
    assert all(isinstance(result, Fetched) for result in results)
    assert len(answers) == 2
    assert is_unreachable(one(fetcher, f"http://a.test:{forbidden}/"))


def test_the_socket_guard_holds_even_if_a_forbidden_address_got_past_the_lookup(forbidden):
    guarded = GuardedCurl(ALLOW, connect_timeout=1.0)
    for host in ("127.0.0.2", "a.test"):
        target = Target(url=f"http://{host}:{forbidden}/", host=host, port=forbidden, literal=False)
        guarded.aim(target, ["127.0.0.2"])
        with pytest.raises(pycurl.error):
            guarded.curl.perform()
        assert not guarded.connected()
        assert guarded.refused == f"address not allowed: 127.0.0.2 port {forbidden}"
    guarded.curl.close()


@pytest.mark.parametrize("url", ["http://localhost:{}/", "http://127.0.0.2:{}/", "http://2130706434:{}/", "http://[::1]:{}/"])
def test_libcurl_looks_nothing_up_past_the_addresses_it_was_given(forbidden, url, caplog):
    guarded = GuardedCurl(ALLOW, connect_timeout=1.0)
    guarded.aim(Target(url=url.format(forbidden), host="a.test", port=forbidden, literal=False), ["127.0.0.1"])
    with pytest.raises(pycurl.error):
        guarded.curl.perform()
    assert "refused" in caplog.text
    guarded.curl.close()


def test_libcurl_speaks_no_other_scheme(tmp_path):
    (tmp_path / "secret").write_text("secret")
    for url in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "dict://127.0.0.1/"):
        guarded = GuardedCurl(ALLOW, connect_timeout=1.0)
        guarded.aim(Target(url=url, host="127.0.0.1", port=80, literal=True), ["127.0.0.1"])
        with pytest.raises(pycurl.error):
            guarded.curl.perform()
        guarded.curl.close()


def test_a_connection_is_not_used_again_for_an_address_that_is_not_allowed(serve):
    server = serve({"*": answer()})
    guarded = GuardedCurl(ALLOW, connect_timeout=1.0)
    guarded.curl.setopt(pycurl.WRITEFUNCTION, lambda _: None)
    target = Target(url=f"http://a.test:{server.port}/", host="a.test", port=server.port, literal=False)
    guarded.aim(target, ["127.0.0.1"])
    guarded.curl.perform()
    guarded._allow = ()
    guarded.aim(target, ["127.0.0.1"])
    with pytest.raises(pycurl.error):
        guarded.curl.perform()
    assert len(server.requests) == 1
    guarded.curl.close()


def test_what_the_text_of_a_url_shows_is_told_and_asks_nobody(make_fetcher, forbidden):
    fetcher = make_fetcher({"*": lambda: pytest.fail("looked up")})
    results = run(fetcher, f"http://127.0.0.2:{forbidden}/", "ftp://a.test/", "http://u:p@a.test/", "http://0x7f.1/")
    assert all(is_failure(result, ItemCode.URL_NOT_ALLOWED) for result in results)


def test_a_port_the_setting_does_not_open_is_refused_in_the_text_or_after_the_lookup(make_fetcher, serve):
    server = serve({"*": answer()})
    allow = parse_allow(f"127.0.0.1/32:{server.port},10.0.0.0/8:1234")
    by_text, by_address, good = run(
        make_fetcher(allow=allow), "http://a.test:1233/", "http://a.test:1234/", f"http://a.test:{server.port}/"
    )
    assert is_failure(by_text, ItemCode.URL_NOT_ALLOWED, "port")
    assert is_unreachable(by_address)
    assert isinstance(good, Fetched)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_environment_is_not_used(make_fetcher, serve, forbidden, monkeypatch, variable):
    server = serve({"/": answer()})
    monkeypatch.setenv(variable, f"http://127.0.0.2:{forbidden}")
    assert isinstance(one(make_fetcher(), f"http://a.test:{server.port}/"), Fetched)


def test_an_address_the_system_has_no_sockets_for_is_passed_over():
    guarded = GuardedCurl(ALLOW, connect_timeout=1.0)
    no_such_family = pycurl.CurlSockAddr(12345, socket.SOCK_STREAM, 0, ("127.0.0.1", 80))
    assert guarded._open_socket(0, no_such_family) == pycurl.SOCKET_BAD
    guarded.curl.close()


# ---- redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["/image", "image", "http://other.test:{port}/image", "//other.test:{port}/image?a=b"])
def test_a_redirect_is_followed(make_fetcher, serve, status, location):
    server = serve({"/image": answer()})
    server.paths["/"] = redirect(location.format(port=server.port), status)
    assert one(make_fetcher(), f"http://a.test:{server.port}/") == Fetched(index=0, data=BODY)


def test_a_redirect_with_raw_bytes_in_its_path_is_followed_percent_encoded(make_fetcher, serve):
    server = serve({"/b%C3%BCcher%20x": answer()})
    server.paths["/"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /b\xc3\xbccher x\r\n\r\n"
    assert isinstance(one(make_fetcher(), f"http://a.test:{server.port}/"), Fetched)


def test_a_redirect_to_a_name_beyond_ascii_is_followed(make_fetcher, serve):
    server = serve({"/b%C3%BCcher%20x": answer()})
    location = f"http://bücher.test:{server.port}/bücher x".encode()
    server.paths["/"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    assert isinstance(one(make_fetcher(), f"http://a.test:{server.port}/"), Fetched)
    assert f"Host: xn--bcher-kva.test:{server.port}" in server.requests[-1]


def test_a_redirect_with_bytes_that_are_no_utf_8_is_followed_byte_by_byte(make_fetcher, serve):
    server = serve({"/b%FCcher": answer()})
    server.paths["/"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /b\xfccher\r\n\r\n"
    assert isinstance(one(make_fetcher(), f"http://a.test:{server.port}/"), Fetched)


def test_a_url_beyond_ascii_is_asked_for_as_browsers_do(make_fetcher, serve):
    server = serve({"/%C3%9Cbersicht%20M%C3%A4rz.jpg": answer()})
    assert isinstance(one(make_fetcher(), f"http://bücher.test:{server.port}/Übersicht März.jpg"), Fetched)
    assert f"Host: xn--bcher-kva.test:{server.port}" in server.requests[-1]


REFUSED_REDIRECTS = [
    "http://127.0.0.2:{port}/",
    "http://2130706434:{port}/",
    "http://0x7f.0.0.2:{port}/",
    "http://[::ffff:127.0.0.2]:{port}/",
    "http://private.test:{port}/",
    "http://mixed.test:{port}/",
    "//private.test:{port}/",
    "http://u:p@private.test:{port}/",
    "http://a.test:{port}\\@127.0.0.2:{port}/",
    "\\\\127.0.0.2:{port}\\",
    "http://[::1",
    "https://private.test:{port}/",
    "file:///etc/passwd",
    "ftp://127.0.0.2:{port}/",
    "gopher://127.0.0.2:{port}/",
    "dict://127.0.0.2:{port}/",
    "data:image/png;base64,AAAA",
]


@pytest.mark.parametrize("location", REFUSED_REDIRECTS)
def test_a_redirect_to_what_may_not_be_reached_reads_like_any_other_failure_to_connect(make_fetcher, serve, forbidden, location):
    server = serve({"/": redirect(location.format(port=forbidden))})
    fetcher = make_fetcher({"private.test": ["127.0.0.2"], "mixed.test": ["127.0.0.1", "127.0.0.2"]})
    assert is_unreachable(one(fetcher, f"http://a.test:{server.port}/"), redirected=True)
    assert len(server.requests) == 1


def test_ten_redirects_are_followed_and_an_eleventh_is_not(make_fetcher, serve):
    server = serve({**{f"/{n}": redirect(f"/{n + 1}") for n in range(11)}, "/11": answer()})
    eleven, ten = run(make_fetcher(), f"http://a.test:{server.port}/0", f"http://a.test:{server.port}/1")
    assert is_failure(eleven, ItemCode.FETCH_FAILED)
    assert eleven.detail == "The server redirected more than 10 times."
    assert isinstance(ten, Fetched)


def test_a_failure_behind_a_redirect_says_that_there_was_one(make_fetcher, serve):
    server = serve({"/": redirect("/missing"), "/late": redirect("/never"), "/missing": answer(b"", "404 Not Found")})
    server.paths["/never"] = lambda _: server.gone.wait()
    fetcher = make_fetcher(deadline=0.5)
    missing, late = run(fetcher, f"http://a.test:{server.port}/", f"http://a.test:{server.port}/late")
    assert missing.detail == "After a redirect: The server answered HTTP 404."
    assert is_failure(late, ItemCode.FETCH_TIMEOUT, "After a redirect: ")


def test_a_redirect_loop_ends(make_fetcher, serve):
    server = serve({"/": redirect("/")})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "redirect")
    assert len(server.requests) == 11
