"""Which URLs and addresses may be asked for: the tables of the rules, and what must hold of every address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.outbound.addresses import Allowed, Target, address_allowed, check_url, parse_allow, read_url

REFUSED_NETWORKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "::/3", "64:ff9b::/96", "::ffff:0:0/96", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    "4000::/3", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip


@pytest.mark.parametrize("network", REFUSED_NETWORKS)
def test_both_ends_of_a_refused_network_are_refused(network):
    net = ipaddress.ip_network(network)
    assert not address_allowed(str(net[0]), 443, ())
    assert not address_allowed(str(net[-1]), 443, ())


@pytest.mark.parametrize(
    "ip",
    [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "168.63.129.15", "168.63.129.17",
        "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.88.98.255", "192.167.255.255", "198.17.255.255", "198.20.0.0",
        "223.255.255.255", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2003::", "2606:4700:4700::1111",
        "2620:4f:7fff::", "2620:4f:8001::", "3ffe:ffff::", "3fff:1000::",
    ],
)  # fmt: skip
def test_the_neighbours_of_refused_networks_are_allowed(ip):
    assert address_allowed(ip, 80, ())
    assert address_allowed(ip, 443, ())


@pytest.mark.parametrize("port", [0, 1, 22, 79, 81, 442, 444, 6379, 8080, 65535])
def test_a_public_address_is_refused_on_any_other_port(port):
    assert not address_allowed("1.1.1.1", port, ())


EVERYWHERE = parse_allow("0.0.0.0/0:*,[::/0]:*")


@pytest.mark.parametrize(
    "text",
    [
        "::ffff:1.1.1.1", "::ffff:127.0.0.1", "fe80::1%lo", "fe80::1%1", "2606:4700::1%eth0", "localhost", "", "1.1.1",
        "0x7f.1", "2130706433", "127.1", "01.1.1.1", "1.1.1.1/32", "[2606:4700::1]", " 1.1.1.1", "１.1.1.1",
    ],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused_whatever_the_setting_opens(text):
    assert not address_allowed(text, 80, EVERYWHERE)


def test_the_setting_opens_its_network_on_its_port_and_nothing_beside():
    allow = parse_allow("10.1.0.0/16:8080,[fd00::/8]:443")
    assert address_allowed("10.1.255.255", 8080, allow)
    assert address_allowed("fd12::1", 443, allow)
    assert not address_allowed("10.1.0.1", 80, allow)
    assert not address_allowed("10.2.0.1", 8080, allow)
    assert not address_allowed("fd12::1", 80, allow)
    assert not address_allowed("1.1.1.1", 8080, allow)
    assert address_allowed("1.1.1.1", 443, allow)


v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6, network="2000::/3").map(str) | st.ip_addresses(v=6).map(str)
refused = [ipaddress.ip_network(network) for network in REFUSED_NETWORKS]


@given(ip=v4 | v6, port=st.sampled_from([80, 443]))
@example(ip="224.0.0.1", port=80)
@example(ip="64:ff9b::7f00:1", port=80)
@example(ip="::127.0.0.1", port=80)
@example(ip="fec0::1", port=443)
def test_an_address_is_allowed_just_when_no_refused_network_has_it_and_then_it_is_global(ip, port):
    address = ipaddress.ip_address(ip)
    inside = any(address in network for network in refused if network.version == address.version)
    other_v6 = address.version == 6 and address not in ipaddress.ip_network("2000::/3")
    allowed = address_allowed(ip, port, ())
    assert allowed == (not inside and not other_v6)
    if allowed:
        assert address.is_global
        assert not address.is_multicast


def test_a_setting_is_read_entry_by_entry():
    assert parse_allow(" 127.0.0.1/32:* , 10.1.0.0/16:8080,[fd00::/8]:443, 192.168.1.7:80 ") == (
        Allowed(network=ipaddress.ip_network("127.0.0.1/32"), port=None),
        Allowed(network=ipaddress.ip_network("10.1.0.0/16"), port=8080),
        Allowed(network=ipaddress.ip_network("fd00::/8"), port=443),
        Allowed(network=ipaddress.ip_network("192.168.1.7/32"), port=80),
    )


@pytest.mark.parametrize("text", ["", "   "])
def test_a_blank_setting_opens_nothing(text):
    assert parse_allow(text) == ()


@pytest.mark.parametrize(
    "entry",
    [
        "10.1.0.0/16", "10.1.0.0/16:", ":80", "10.1.0.1/16:80", "10.1.0.0/33:80", "10.1.0.0/16:0", "10.1.0.0/16:65536",
        "10.1.0.0/16:http", "10.1.0.0/16:-1", "10.1.0.0/16:8080-8090", "fd00::/8:443", "[10.0.0.0/8]:80", "[fd00::/8]",
        "localhost:80", "[::ffff:10.0.0.0/104]:80", "*:80", "10.1.0.0/16:٣",
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_read_is_refused_and_names_the_entry(entry):
    with pytest.raises(ValueError) as caught:
        parse_allow(f"127.0.0.1/32:*,{entry}")
    assert repr(entry) in str(caught.value)


def test_an_empty_entry_of_a_setting_is_refused():
    with pytest.raises(ValueError):
        parse_allow("127.0.0.1/32:*,,10.0.0.0/8:80")


@pytest.mark.parametrize(
    ("url", "host", "port", "asked"),
    [
        ("http://example.com", "example.com", 80, "http://example.com"),
        ("HTTPS://Example.COM/A?b=C", "example.com", 443, "https://example.com/A?b=C"),
        ("http://example.com:443/", "example.com", 443, "http://example.com:443/"),
        ("https://example.com:443/", "example.com", 443, "https://example.com/"),
        ("http://example.com:/", "example.com", 80, "http://example.com/"),
        ("http://example.com?a@b", "example.com", 80, "http://example.com?a@b"),
        ("http://example.com/@a#@b", "example.com", 80, "http://example.com/@a"),
        ("http://example.com#@127.0.0.1/", "example.com", 80, "http://example.com"),
        ("http://example.com./", "example.com.", 80, "http://example.com./"),
        ("http://a_b.xn--bcher-kva.example/", "a_b.xn--bcher-kva.example", 80, "http://a_b.xn--bcher-kva.example/"),
        ("http://1.2.3.example/", "1.2.3.example", 80, "http://1.2.3.example/"),
        ("http://0x7f.example/", "0x7f.example", 80, "http://0x7f.example/"),
        ("http://example.com/a b", "example.com", 80, "http://example.com/a%20b"),
        ("http://example.com/Übersicht März.jpg", "example.com", 80, "http://example.com/%C3%9Cbersicht%20M%C3%A4rz.jpg"),
        (
            "http://example.com/é%C3%A9?ö=日 本#ü",
            "example.com",
            80,
            "http://example.com/%C3%A9%C3%A9?%C3%B6=%E6%97%A5%20%E6%9C%AC",
        ),
        ("http://bücher.example/", "xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/"),
        ("https://BÜCHER.example:443/ä", "xn--bcher-kva.example", 443, "https://xn--bcher-kva.example/%C3%A4"),
        ("http://straße.example/", "xn--strae-oqa.example", 80, "http://xn--strae-oqa.example/"),
        ("http://例え.テスト/", "xn--r8jz45g.xn--zckzah", 80, "http://xn--r8jz45g.xn--zckzah/"),
        ("http://example。com/", "example.com", 80, "http://example.com/"),
        ("http://1.1.1.1/", "1.1.1.1", 80, "http://1.1.1.1/"),
        ("https://[2606:4700:0:0::1]/", "2606:4700::1", 443, "https://[2606:4700::1]/"),
    ],
)
def test_a_url_that_may_be_tried_is_given_to_the_client_in_one_spelling(url, host, port, asked):
    literal = host in ("1.1.1.1", "2606:4700::1")
    assert read_url(url, ()) == Target(url=asked, host=host, port=port, literal=literal)
    assert check_url(url, ()) is None


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "http"),
        ("example.com/a.png", "http"),
        ("//example.com/", "http"),
        ("ftp://example.com/", "http"),
        ("file:///etc/passwd", "http"),
        ("gopher://example.com/", "http"),
        ("data:image/png;base64,AAAA", "http"),
        ("javascript:alert(1)", "http"),
        ("httpx://example.com/", "http"),
        ("http:/example.com/", "http"),
        ("http:example.com", "http"),
        ("http://", "no host"),
        ("http:///example.com/", "no host"),
        ("http://:80/", "no host"),
        ("http://?a", "no host"),
        ("http://[]/", "no host"),
        ("http://user@example.com/", "user name"),
        ("http://user:pass@example.com/", "user name"),
        ("http://@example.com/", "user name"),
        ("http://example.com@127.0.0.1/", "user name"),
        ("http://127.0.0.1#@example.com/", "address"),
        ("http://example.com\\@127.0.0.1/", "backslash"),
        ("http:\\\\127.0.0.1/", "backslash"),
        ("http://example.com/a\\b", "backslash"),
        ("http://example.com/ ", "control"),
        ("http://example.com/\ud800", "control"),
        (" http://example.com/", "control"),
        ("http://example.com/\n", "control"),
        ("http://example.com/\r\nX: y", "control"),
        ("http://example.com/\t", "control"),
        ("http://example.com/\x00", "control"),
        ("http://example.com/\x7f", "control"),
        ("http://１２７.0.0.1/", "public"),
        ("http://127。0。0。1/", "public"),
        ("http://①②⑦.1/", "plain form"),
        ("http://ⓛocalhost＠127.0.0.1/", "valid name"),
        ("http://bücher＃.example/", "valid name"),
        ("http://bücher／.example/", "valid name"),
        ("http://a b.example/", "valid name"),
        ("http://bü cher.example/", "valid name"),
        ("http://b%C3%BCcher.example/", "valid name"),
        ("http://bücher.example:8080/", "port"),
        ("http://user@bücher.example/", "user name"),
        ("http://example.com:22/", "port"),
        ("http://example.com:8080/", "port"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65616/", "port"),
        ("http://example.com:80:80/", "port"),
        ("http://example.com:8O/", "port"),
        ("http://example.com:-80/", "port"),
        ("http://1.1.1.1:8080/", "port"),
        ("http://127.0.0.1/", "public"),
        ("http://10.0.0.1/", "public"),
        ("http://169.254.169.254/latest/meta-data/", "public"),
        ("http://168.63.129.16/", "public"),
        ("http://0.0.0.0/", "public"),
        ("http://255.255.255.255/", "public"),
        ("http://[::1]/", "public"),
        ("http://[::]/", "public"),
        ("http://[fd00:ec2::254]/", "public"),
        ("http://[64:ff9b::7f00:1]/", "public"),
        ("http://[::127.0.0.1]/", "public"),
        ("http://[2002:7f00:1::]/", "public"),
        ("http://127.1/", "plain form"),
        ("http://127.0.1/", "plain form"),
        ("http://2130706433/", "plain form"),
        ("http://16843009/", "plain form"),
        ("http://0x7f000001/", "plain form"),
        ("http://0X7F.0.0.1/", "plain form"),
        ("http://0177.0.0.1/", "plain form"),
        ("http://017700000001/", "plain form"),
        ("http://127.0.0.1./", "plain form"),
        ("http://0/", "plain form"),
        ("http://0x/", "plain form"),
        ("http://1.1.1.256/", "plain form"),
        ("http://example.1/", "plain form"),
        ("http://[::ffff:127.0.0.1]/", "plain form"),
        ("http://[::ffff:1.1.1.1]/", "plain form"),
        ("http://[fe80::1%25lo]/", "plain form"),
        ("http://[fe80::1%lo]/", "plain form"),
        ("http://[1.1.1.1]/", "plain form"),
        ("http://[v1.a]/", "plain form"),
        ("http://[::1/", "not valid"),
        ("http://::1/", "not valid"),
        ("http://[2606:4700::1]x/", "not valid"),
        ("http://%31%32%37.0.0.1/", "valid name"),
        ("http://a..b/", "valid name"),
        ("http://.a/", "valid name"),
        ("http://./", "valid name"),
        (f"http://{'a' * 64}.example/", "valid name"),
        (f"http://{'a.' * 127}/", "valid name"),
        ("http://a,b/", "valid name"),
        ("http://a;b/", "valid name"),
        ("http://example.com/" + "a" * 7990, "longer"),
    ],
)  # fmt: skip
def test_a_url_whose_text_alone_is_refused_is_told_why(url, word):
    reason = check_url(url, ())
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize("letter", "aé")
def test_a_url_of_8000_characters_is_taken(letter):
    url = "http://example.com/"
    assert check_url(url + letter * (8000 - len(url)), ()) is None
    assert check_url(url + letter * (8001 - len(url)), ()) is not None


def test_an_opened_port_lets_names_through_since_only_their_addresses_can_decide():
    allow = parse_allow("10.1.0.0/16:8080")
    assert check_url("http://images.internal:8080/", allow) is None
    assert check_url("http://10.1.2.3:8080/", allow) is None
    assert check_url("http://images.internal:8081/", allow) is not None
    assert check_url("http://10.2.2.3:8080/", allow) is not None


def test_a_port_beyond_65535_is_refused_even_where_all_are_open():
    assert check_url("http://example.com:65616/", EVERYWHERE) is not None
    assert check_url("http://example.com:0/", EVERYWHERE) is not None


@given(st.text(max_size=60) | st.from_regex(r"https?://[!-~]{0,40}", fullmatch=True))
def test_any_text_is_either_refused_with_a_sentence_or_read_as_one_host(url):
    read = read_url(url, ())
    if isinstance(read, str):
        assert read.endswith(".")
    else:
        assert read.port in (80, 443)
        assert read_url(read.url, ()) == read
        assert "@" not in read.url.split("/")[2].partition("?")[0]


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("http://127.0.0.1:8000/examples/09-ferry-banner.gif", True),
        ("http://127.0.0.1:8000/metrics", False),
        ("http://127.0.0.1:8000/examples/", False),
        ("http://127.0.0.1:8000/examples/../metrics", False),
        ("http://127.0.0.1:8000/examples/%2e%2e/metrics", False),
        ("http://127.0.0.1:8000/examples/a.gif?next=1", False),
        ("http://127.0.0.1:8001/examples/a.gif", False),
        ("http://127.0.0.2:8000/examples/a.gif", False),
        ("http://localhost:8000/examples/a.gif", False),
    ],
)
def test_an_entry_with_a_path_opens_only_the_files_at_that_path(url, opened):
    assert (check_url(url, parse_allow("127.0.0.1/32:8000/examples/")) is None) == opened
