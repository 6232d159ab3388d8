"""The alerts name what /metrics shows, fire when they should, and lead to a page that says what to do."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, insert, select, text, update

from api.health import FRESH_SECONDS
from config.settings import load_settings
from pipeline.economy import RESERVE_SECONDS
from pipeline.ports import Cause
from pipeline.types import StepKind, Tier
from storage.books import credits as books
from storage.books.credits import HOLDS, LEDGER, ROUNDS
from storage.database import Database, migrate
from storage.redis.counts import PUBLISH_SECONDS
from storage.schema import accounts_table, ledger_table
from tests.compose import COMPOSE, OVERLAYS, ROOT, SERVICES, merged
from tests.docs.markdown import anchors, blocks, inline_code, read
from tests.docs.test_reference import source_trees
from tests.rows import new_account

FOLDER = ROOT / "deploy" / "prometheus"
PAGE = "docs/how-to/bad-night.md"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
TESTS = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
ALERTS = sorted({rule["alert"] for rule in RULES})
#: What Prometheus itself and its exporters show.
OTHERS = {"up", "probe_ssl_earliest_cert_expiry", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}
#: Label → the values that our metrics have.
VALUES = {
    "kind": {kind.value for kind in StepKind},
    "tier": {tier.value for tier in Tier},
    "cause": {cause.value for cause in Cause},
    "check": {"database", "redis", "scratch", "model", LEDGER, ROUNDS, HOLDS},
    "part": {"redis", "database"},
    "role": {"web", "worker", "supervisor", "alone"},
}


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not here: `make promtool` installs it")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def selectors() -> list[tuple[str, dict[str, str]]]:
    """Each metric that the rules name, with the labels that it is chosen by."""
    found = []
    for rule in RULES:
        expr = re.sub(r'"[^"]*"', lambda quoted: quoted[0].replace("{", "(").replace(" ", ""), rule["expr"])
        for name, chosen in re.findall(r"\b([a-z_]{2,})(?:\{([^}]*)\})?", re.sub(r"\b(?:by|on) \([^)]*\)", "", expr)):
            if name in OTHERS or name.startswith("extract_image_"):
                found.append((name, dict(re.findall(r'(\w+)(?:!?=~?)"([^"]*)"', chosen))))
    return found


@pytest.mark.slow
def test_the_rules_fire_when_they_should_and_are_silent_otherwise():
    promtool("check", "rules", FOLDER / "alerts.yml")
    promtool("test", "rules", FOLDER / "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_firing_and_silent(alert):
    cases = [case for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}
    severities = {expected["exp_labels"]["severity"] for case in cases for expected in case["exp_alerts"]}
    assert severities == {rule["labels"]["severity"] for rule in RULES if rule["alert"] == alert}


def test_the_tests_name_no_alert_that_is_gone():
    assert {case["alertname"] for test in TESTS for case in test["alert_rule_test"]} == set(ALERTS)


def test_the_rules_and_their_tests_name_only_metrics_that_a_fresh_service_shows(harness):
    harness.supervisor.tick()
    families = list(text_string_to_metric_families(harness.client.get("/metrics").text))
    shown = {name for family in families for name in (family.name, f"{family.name}_total")}
    named = {name for name, _ in selectors()}
    assert {name for name in named if name.startswith("extract_image_")} - shown == set()
    assert named - shown == OTHERS
    fed = {re.match(r"\w+", series["series"])[0] for test in TESTS for series in test["input_series"]}
    assert fed - shown - OTHERS == set()
    # What alerts on absence or on an increase needs must be there before anything happened.
    samples = {sample.name for family in families for sample in family.samples}
    assert {"extract_image_leases_expired_total", "extract_image_jobs_overdue_total", "extract_image_books_wrong"} <= samples
    assert {"extract_image_ready", "extract_image_storage_full", "extract_image_scratch_limit_bytes"} <= samples


def test_the_rules_choose_labels_and_values_that_exist(harness):
    for name, chosen in selectors():
        for label, value in chosen.items():
            if label in VALUES and name not in OTHERS:
                assert set(value.split("|")) <= VALUES[label], (name, label)
    jobs = {chosen["job"] for _, chosen in selectors() if "job" in chosen}
    assert jobs == {scrape["job_name"] for scrape in CONFIG["scrape_configs"]}


def test_the_alert_on_economy_jobs_is_the_plan_s_own_reserve():
    [rule] = [rule for rule in RULES if rule["alert"] == "ExtractImageEconomyLate"]
    assert float(rule["expr"].partition("<")[2]) == RESERVE_SECONDS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_each_alert_says_how_urgent_it_is_and_leads_to_its_section(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == (PAGE, rule["alert"].lower())
    assert anchor in anchors(PAGE)


def test_each_section_of_the_page_has_its_alert_and_says_three_things():
    sections = dict(re.findall(r"^## (ExtractImage\w+)\n(.*?)(?=^## )", read(PAGE), re.MULTILINE | re.DOTALL))
    assert sorted(sections) == ALERTS
    for name, section in sections.items():
        assert "**Users notice:**" in section, name
        assert re.search(r"\*\*Look(?::\*\*| and do:\*\*)", section), name
        assert re.search(r"\*\*(?:Do|Look and do):\*\*", section), name
        assert f"(#{name.lower()})" in read(PAGE).partition("## ExtractImage")[0], f"{name} is not in the table"


def test_the_statements_of_the_page_can_be_run(postgres_server):
    statements = [found for block in blocks(PAGE) for found in re.findall(r'psql -U extract_image -c "([^"]+)"', block.text)]
    assert len(statements) > 5
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        with database.read() as connection:
            for statement in statements:
                connection.execute(text(statement.replace(":", r"\:")))
        database.close()


def test_the_events_that_the_page_looks_for_are_logged():
    named = {
        event
        for block in blocks(PAGE)
        for line in re.findall(r"grep (.*)", block.text)
        for event in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", line)
        if not event.startswith("extract_image_")  # a metric
    }
    logged = {
        value
        for tree in source_trees("api", "cli", "pipeline", "storage", "workers")
        for value in re.findall(r"log\.\w+\('(\w+)'", ast.unparse(tree))
    }
    assert named - logged == set()
    table = {
        event
        for line in read("docs/how-to/read-the-logs.md").splitlines()
        for event in re.findall(r"`(\w+)`", line.split("|")[1] if line[:1] == "|" else "")
    }
    assert named & logged - table == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_each_section_says_when_its_alert_fires(alert):
    """Its thresholds and times in words are those of the rules."""
    section = re.search(rf"^## {alert}\n(.*?)(?=^## )", read(PAGE), re.MULTILINE | re.DOTALL)
    assert section is not None
    [fires] = re.findall(r"^\*\*Fires\*\* (.*)$", section[1], re.MULTILINE)
    for rule in (rule for rule in RULES if rule["alert"] == alert):
        times = [rule["for"]] if "for" in rule else []
        wanted = [f"for {in_words(int(time[:-1]) * {'m': 60, 'h': 3600}[time[-1]])}" for time in times] or ["at once"]
        for number, day in re.findall(r"[<>]=? ([\d.]+)( \* 86400)?", rule["expr"]):
            if day:
                wanted.append(f"{number} days")
            elif float(number):
                wanted.append(f"{float(number) * 100:g} %" if float(number) < 1 else in_words(float(number)))
        assert [words for words in wanted if words not in fires] == []


def test_the_page_names_only_processes_that_there_are_for_each_way_to_run():
    codes = inline_code(PAGE)
    units = {
        name
        for code in codes
        for name in re.findall(r"extract-image-(\w+@?)", code)
        if code.startswith(("systemctl", "journalctl"))
    }
    kept = {path.stem.removeprefix("extract-image-") for path in (ROOT / "deploy" / "systemd").glob("*.service")}
    assert {"web", "supervisor", "worker@"} <= units <= kept | {"NAME"}
    deployments = {name for code in codes for name in re.findall(r"deployment/(\w+)", code)}
    assert deployments == {"web", "worker", "supervisor", "NAME"}
    assert all((ROOT / "deploy" / "kubernetes" / "base" / f"{name}.yaml").is_file() for name in deployments - {"NAME"})
    composed = {name for code in codes for name in re.findall(r"docker compose (?:exec|restart|run --rm --no-deps) (\w+)", code)}
    assert composed <= {*merged(*OVERLAYS)["services"], "NAME"}


def in_words(seconds: float) -> str:
    number, unit = (seconds / 3600, "hour") if seconds % 3600 == 0 else (seconds / 60, "minute")
    return f"{number:g} {unit}" + ("s" if number != 1 else "")


@pytest.mark.parametrize(("wrong", "right"), [((7, 7, 7), (970, 20, 10)), ((970, 20, 10), (970, 20, 10))])
def test_the_statement_of_the_page_makes_an_account_what_its_ledger_says(postgres_server, wrong, right):
    [block] = [block for block in blocks(PAGE) if block.kind == "sh production"]
    sql = block.text.partition("<<'SQL'\n")[2].partition("SQL\n")[0]
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        other, account = new_account(database), new_account(database)
        with database.write() as connection:
            connection.execute(delete(ledger_table))
            rows = [("grant", None, 1000), ("reserve", "a", 15), ("charge", "a", 10), ("release", "a", 5), ("reserve", "b", 20)]
            for kind, job, amount in rows:
                row = {"account": account, "job": job, "round": 0, "kind": kind, "amount": amount, "created_at": 0}
                connection.execute(insert(ledger_table).values(**row))
            available, held, charged = wrong
            row = {"available": available, "held": held, "charged": charged}
            connection.execute(update(accounts_table).values(**row))
        with database.write() as connection:
            for statement in sql.replace("acc_…", account).split(";"):
                if statement.strip() not in {"", "BEGIN", "COMMIT"}:
                    connection.execute(text(statement))
        with database.read() as connection:
            columns = accounts_table.c
            found = {
                row.id: tuple(row)[1:]
                for row in connection.execute(select(columns.id, columns.available, columns.held, columns.charged))
            }
            assert found == {account: right, other: wrong}
            assert account not in str(books.ledger(connection))
        database.close()


def test_prometheus_reads_the_published_port_with_the_token_and_not_more_often_than_counts_are_published(tmp_path):
    [ours] = [scrape for scrape in CONFIG["scrape_configs"] if scrape["job_name"] == "extract-image"]
    [target] = ours["static_configs"][0]["targets"]
    [published] = SERVICES["proxy"]["ports"]
    assert target == published.removeprefix("${PUBLISH:-").partition("}")[0]
    assert ours.get("metrics_path", "/metrics") == "/metrics"
    seconds = float(CONFIG["global"]["scrape_interval"].removesuffix("s"))
    assert seconds > max(PUBLISH_SECONDS, FRESH_SECONDS)
    token = tmp_path / "token"
    token.write_text("a-token")
    shown = (FOLDER / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(shown.replace(ours["authorization"]["credentials_file"], str(token)))
    (tmp_path / "alerts.yml").write_text((FOLDER / "alerts.yml").read_text())
    promtool("check", "config", tmp_path / "prometheus.yml")


def test_only_web_is_given_the_token_of_prometheus():
    assert [name for name, service in SERVICES.items() if "metrics_token" in service.get("secrets", [])] == ["web"]
    assert COMPOSE["secrets"]["metrics_token"] == {"file": "./secrets/metrics_token"}
    assert load_settings({"METRICS_TOKEN": "t"}).metrics_token is not None
