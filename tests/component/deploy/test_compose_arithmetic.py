"""What docker-compose.yml, its overlays and the how-to say in numbers adds up: connections, memory, ports, secrets, file systems."""

from __future__ import annotations

import configparser
import re
from typing import Any

import pytest

from config.roles import ALONE_CONNECTIONS, CONNECTIONS
from config.settings import Settings, load_settings
from tests.compose import COMPOSE, ONCE, OVERLAYS, ROOT, SERVICES, environment, example, make_secrets, merged, mounted, overlay
from workers.alone import SEATS

HOW_TO = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text()


def scale(page: str) -> dict[str, int]:
    """The numbers of containers that a page has people write into .env."""
    return {name.lower(): int(count) for name, count in re.findall(r"^    (WEB|WORKER)_REPLICAS=(\d+)$", page, re.MULTILINE)}


SCALED = scale(HOW_TO)
RESERVED = 3  #: connections that Postgres keeps for its superuser
BY_HAND = 5  #: commands that somebody may run beside the service at once
POOLER = configparser.ConfigParser(inline_comment_prefixes=None)
POOLER.read(ROOT / "deploy" / "compose" / "pgbouncer.ini")
GB = 1 << 30


def replicas(name: str) -> int:
    """How many containers there are where .env does not say."""
    return int(re.sub(r"^\$\{\w+:-(\d+)\}$", r"\1", str(merged(*OVERLAYS)["services"][name]["deploy"].get("replicas", 1))))


def most_connections(containers: dict[str, int], settings: Settings) -> int:
    """The most connections to the database that so many containers of each kind open."""
    web = settings.database_connections or CONNECTIONS["web"]
    worker = settings.database_connections or CONNECTIONS["worker"]
    each = {
        "web": web * int(example()["WEB_CONCURRENCY"]),
        "worker": worker + SEATS * ALONE_CONNECTIONS,
        "supervisor": CONNECTIONS["supervisor"],
    }
    return sum(each[name] * count for name, count in containers.items())


def max_connections() -> int:
    [found] = [word for word in SERVICES["postgres"]["command"] if word.startswith("max_connections=")]
    return int(found.partition("=")[2])


def bytes_of(size: str) -> int:
    return int(size[:-1]) * {"k": 1 << 10, "m": 1 << 20, "g": GB}[size[-1]]


def memory(services: dict[str, Any], scaled: dict[str, int], *, once: bool) -> int:
    """The sum of the containers' memory limits. `once`: also of those that run once."""
    return sum(
        bytes_of(service["deploy"]["resources"]["limits"]["memory"]) * scaled.get(name, replicas(name))
        for name, service in services.items()
        if once or name not in ONCE
    )


def settings(name: str, tmp_path) -> Settings:
    without = frozenset(("GEMINI_API_KEY",))
    return load_settings({**mounted(environment(name), make_secrets(tmp_path / "secrets"))}, without=without)


def test_the_how_to_names_a_scale_with_more_web_processes_and_workers_than_the_file():
    assert SCALED == {"web": 3, "worker": 4}


def test_postgres_takes_all_connections_that_the_service_opens_at_the_scale_of_the_how_to(tmp_path):
    opened = most_connections({**SCALED, "supervisor": replicas("supervisor")}, settings("web", tmp_path))
    assert opened + BY_HAND * CONNECTIONS["command"] + RESERVED <= max_connections()
    assert f"opens up to {opened} connections" in " ".join(HOW_TO.split())
    assert f"= {opened}." in (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert f"the service opens up to {opened}" in (ROOT / "docker-compose.yml").read_text()
    sizes = (ROOT / "docs" / "reference" / "sizes.md").read_text()
    [allowed, web, workers] = map(
        int, re.findall(r"allows (\d+) \(`max_connections`\), which is (\d+) web.*?and (\d+)\s+workers", sizes)[0]
    )
    assert allowed == max_connections()
    most = most_connections({"web": web, "worker": workers, "supervisor": 1}, settings("web", tmp_path))
    assert allowed - 28 < most + BY_HAND * CONNECTIONS["command"] + RESERVED <= allowed


def test_with_eighty_connections_a_process_as_before_it_would_not(tmp_path):
    """The test above notices the fault that it is there for."""
    before = settings("web", tmp_path).model_copy(update={"database_connections": 80})
    assert most_connections({**SCALED, "supervisor": 1}, before) > max_connections()


def test_postgres_has_memory_for_its_connections():
    [shared] = [word for word in SERVICES["postgres"]["command"] if word.startswith("shared_buffers=")]
    mb = int(shared.partition("=")[2].removesuffix("MB"))
    each = 4 * (1 << 20)  # measured: 1.8 MB of its own after 40 statements; the rest is for sorts
    assert (mb << 20) + max_connections() * each <= bytes_of(SERVICES["postgres"]["deploy"]["resources"]["limits"]["memory"])
    assert SERVICES["postgres"]["deploy"]["resources"]["limits"]["pids"] > max_connections() + 50  # a process each


def test_the_how_to_asks_for_as_much_memory_as_the_containers_may_take():
    [asked] = re.findall(r"and (\d+) GB of memory", HOW_TO)
    [summed, more_web, more_worker] = map(
        int,
        re.findall(r"limits of the containers sum to (\d+) GB.*?web container (\d+) GB.*?worker (\d+) GB", HOW_TO, re.DOTALL)[0],
    )
    assert memory(SERVICES, {}, once=False) == summed * GB
    assert memory(SERVICES, {}, once=True) <= int(asked) * GB
    assert memory(SERVICES, {"web": 2}, once=False) == (summed + more_web) * GB
    assert memory(SERVICES, {"worker": 3}, once=False) == (summed + more_worker) * GB
    [scaled] = re.findall(r"at this scale the limits sum to (\d+) GB", HOW_TO)
    assert memory(SERVICES, SCALED, once=False) == int(scaled) * GB


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_needs_no_memory_that_the_how_to_does_not_ask_for(name):
    [asked] = re.findall(r"and (\d+) GB of memory", HOW_TO)
    assert memory(merged(name)["services"], {}, once=True) <= int(asked) * GB


def test_no_two_ports_of_a_machine_collide():
    published = [port for service in merged(*OVERLAYS)["services"].values() for port in service.get("ports", [])]
    outside = [port.rpartition(":")[0] + ("/udp" if port.endswith("/udp") else "") for port in published]
    assert outside == ["${PUBLISH:-127.0.0.1:8080}", "80", "443", "443/udp"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_an_overlay_adds_can_do_as_little_as_everything_else(name):
    for service, added in overlay(name)["services"].items():
        if service in SERVICES:
            assert not set(added) & {"user", "read_only", "cap_drop", "cap_add", "security_opt", "privileged", "image"}
            continue
        same = ("init", "read_only", "cap_drop", "security_opt", "restart", "stop_grace_period", "logging")
        assert {key: added.get(key) for key in same} == {key: SERVICES["redis"].get(key) for key in same}
        assert "cap_add" not in added
        assert min(map(int, added["user"].split(":"))) > 0
        assert any(place.startswith("/tmp:") for place in added["tmpfs"])
        assert set(added["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
        assert added["healthcheck"]["test"][0] == "CMD"
        dockerfile = (ROOT / added["build"]["context"] / added["build"]["dockerfile"]).read_text()
        assert f"USER {added['user']}" in dockerfile


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_an_overlay_uses_exists(name):
    whole = merged(name)
    for service in whole["services"].values():
        assert set(service["networks"]) <= set(whole["networks"])
        assert set(service.get("depends_on", {})) <= set(whole["services"])
        assert set(service.get("secrets", [])) <= set(whole["secrets"])
        for place in service.get("volumes", []):
            source = place.partition(":")[0]
            assert source in whole["volumes"] or (ROOT / source).is_file()


def test_with_caddy_only_it_and_the_workers_reach_the_outside_and_only_the_proxy_is_behind_it():
    whole = merged("caddy")
    shut = {name for name, network in whole["networks"].items() if network.get("internal") or network.get("driver_opts")}
    assert {name for name, service in whole["services"].items() if set(service["networks"]) - shut} == {"worker", "caddy"}
    assert [name for name, service in whole["services"].items() if "tls" in service["networks"]] == ["proxy", "caddy"]


def test_with_pgbouncer_every_process_that_works_reaches_postgres_through_it_and_prepares_nothing(tmp_path):
    secrets = make_secrets(tmp_path / "secrets")
    services = merged("pgbouncer")["services"]
    for name in ("web", "worker", "supervisor"):
        given = {**example(), **services[name]["environment"]}
        loaded = load_settings(mounted(given, secrets), without=frozenset(("GEMINI_API_KEY",)))
        assert loaded.database_prepares is False
        assert f"@pgbouncer:{POOLER['pgbouncer']['listen_port']}/" in loaded.database_url
        assert given["DATABASE_URL_FILE"].rpartition("/")[2] in services[name]["secrets"]
        assert services[name]["depends_on"]["pgbouncer"] == {"condition": "service_healthy"}
    assert "DATABASE_URL_FILE" not in services["migrate"]["environment"]


def test_pgbouncer_takes_all_clients_at_the_scale_of_its_how_to_and_postgres_all_its_connections(tmp_path):
    page = (ROOT / "docs" / "how-to" / "pgbouncer.md").read_text()
    scaled = scale(page)
    clients = most_connections({**scaled, "supervisor": 1}, settings("web", tmp_path))
    numbers = POOLER["pgbouncer"]
    assert clients > max_connections()  # it would not do without
    assert clients + BY_HAND * CONNECTIONS["command"] <= int(numbers["max_client_conn"])
    assert int(numbers["default_pool_size"]) + CONNECTIONS["command"] * BY_HAND + RESERVED <= max_connections()
    files = overlay("pgbouncer")["services"]["pgbouncer"]["ulimits"]["nofile"]
    assert int(numbers["max_client_conn"]) + int(numbers["default_pool_size"]) + 50 <= files
    assert numbers["pool_mode"] == "transaction"


def test_no_published_service_has_a_secret_and_the_metrics_need_a_token_or_this_machine():
    for name, service in merged(*OVERLAYS)["services"].items():
        if "ports" in service:
            assert not service.get("secrets"), name
    assert COMPOSE["secrets"]
