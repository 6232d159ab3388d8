"""`extract-image run` against a running service: tables, resuming, kills, and Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner

from cli.connection import Service
from cli.exits import CommandFault
from cli.main import main
from cli.run.flow import run as run_all
from cli.run.options import Options
from cli.run.progress import Reporter
from cli.run.types import Context
from testbed import ROOT, pictures, serving
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serve")]


@pytest.fixture(scope="module")
def fake():
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def site():
    with pictures() as server:
        yield server


@pytest.fixture(scope="module")
def service(fake, site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "data"
    with serving(folder, GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url, FETCH_ALLOW=site.allow) as running:
        yield running


@pytest.fixture
def here(service, fake, tmp_path, monkeypatch):
    """An empty folder, with the service configured in the environment."""
    fake.latency = 0.0
    fake.blocked = set()
    fake.sent.clear()
    monkeypatch.chdir(tmp_path)
    for name, value in environment(service, tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def environment(service, folder):
    return {
        "EXTRACT_IMAGE_URL": service.url,
        "EXTRACT_IMAGE_KEY": service.key,
        "COLUMNS": "200",
        "XDG_STATE_HOME": str(folder / "xdg-state"),
        "XDG_CONFIG_HOME": str(folder / "xdg-config"),
    }


def run(*arguments, code=0, stdin=None):
    done = CliRunner().invoke(main, arguments, input=stdin)
    assert done.exit_code == code, done.output
    return done


def fill(folder, numbers, kind="PNG"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"foto {number:04} ü.{kind.lower()}").write_bytes(numbered_picture(number, format=kind))


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_mixed_pictures_becomes_a_table_in_each_format(here, fake):
    for at, kind in enumerate(["PNG", "JPEG", "WEBP", "HEIC", "TIFF", "AVIF"]):
        fill(here / "my photos" / ("inner" if at % 2 else "."), [200 + at], kind)
    (here / "my photos" / "kaputt ü.jpg").write_bytes(numbered_picture(9, format="JPEG")[:300])
    (here / "my photos" / "notes.txt").write_text("hello")
    done = run(
        "run", "my photos", "--schema", "shop, total number", "--csv", "o.csv", "--jsonl", "o.jsonl", "--xlsx", "o.xlsx", code=1
    )
    assert done.stdout == ""
    assert "Found 7 images" in done.stderr
    assert "in 2 folders; skipped 1: notes.txt" in done.stderr
    assert "✗ kaputt ü.jpg: The JPEG image" in done.stderr
    assert "7 rows → o.csv and o.jsonl and o.xlsx (1 failed)" in done.stderr
    assert "--retry-failed" in done.stderr
    found = rows(here / "o.csv")
    assert list(found[0]) == ["file", "shop", "total", "status", "error"]
    assert [row["file"] for row in found] == sorted(row["file"] for row in found)
    assert {row["file"]: row["shop"] for row in found}["inner/foto 0203 ü.heic"] == "picture 203"
    assert [json.loads(line)["file"] for line in (here / "o.jsonl").read_text().splitlines()] == [row["file"] for row in found]
    assert (here / "o.xlsx").read_bytes().startswith(b"PK")
    assert sorted(path.name for path in here.glob("o.*")) == ["o.csv", "o.csv.state", "o.jsonl", "o.xlsx"]


def test_the_same_command_sends_only_what_is_new_or_changed(here, fake, service):
    fill(here / "p", [1, 2, 3])
    run("run", "p", "--csv", "o.csv")
    run("run", "p", "--csv", "o.csv")
    assert set(fake.sent.values()) == {1}
    fill(here / "p", [4])
    (here / "p" / "foto 0001 ü.png").write_bytes(numbered_picture(11))
    os.utime(here / "p" / "foto 0002 ü.png")
    run("run", "p", "--csv", "o.csv")
    assert fake.sent == {1: 1, 2: 1, 3: 1, 4: 1, 11: 1}
    assert [row["result"] for row in rows(here / "o.csv")] == [f"picture {number}" for number in (11, 2, 3, 4)]


def test_a_lost_state_file_costs_nothing_because_the_key_is_made_of_the_content(here, fake, service):
    fill(here / "p", [21, 22])
    run("run", "p", "--csv", "o.csv")
    charged = service.balance()["charged"]
    (here / "o.csv.state").unlink()
    run("run", "p", "--csv", "o.csv")
    assert service.balance()["charged"] == charged


def test_another_prompt_asks_for_a_restart(here, fake):
    fill(here / "p", [31])
    run("run", "p", "-p", "Which number?", "--csv", "o.csv")
    assert "--restart" in run("run", "p", "-p", "Which colour?", "--csv", "o.csv", code=2).stderr
    run("run", "p", "-p", "Which colour?", "--csv", "o.csv", "--restart")
    assert fake.sent[31] == 2


def test_a_restart_that_cannot_begin_forgets_nothing(here, fake):
    fill(here / "p", [32])
    run("run", "p", "--csv", "o.csv")
    assert "--max-credits is 1" in run("run", "p", "--csv", "o.csv", "--restart", "--max-credits", "1", code=4).stderr
    run("run", "p", "--csv", "o.csv", "--restart", "--key", "xim_wrong", code=4)
    assert "nothing is sent" in run("run", "p", "--csv", "o.csv").stderr
    assert fake.sent == {32: 1}


def test_a_restart_that_the_user_declines_forgets_nothing(here, fake, service, monkeypatch):
    fill(here / "p", [33])
    run("run", "p", "--csv", "o.csv")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    told = Reporter(out=io.StringIO())
    asked = Context(
        service=Service(url=service.url, key=service.key), reporter=told, can_ask=True, mode=0o600, command=(), started=0.0
    )
    options = Options(paths=("p",), outputs={"csv": here / "o.csv"}, restart=True)
    with pytest.raises(CommandFault, match="nothing forgotten"):
        run_all(options, asked)
    assert "nothing is sent" in run("run", "p", "--csv", "o.csv").stderr
    assert fake.sent == {33: 1}


def test_a_restart_cancels_the_open_jobs_and_says_what_is_paid_again(here, fake, service):
    fill(here / "p", [34, 35])
    run("run", "p", "--csv", "o.csv")
    fill(here / "p", range(36, 40))
    fake.latency = 8
    process = started(service, here, "p", "--csv", "o.csv", "--json")
    with process:
        assert wait_for_event(process, "sent")
        process.send_signal(signal.SIGINT)
    fake.latency = 0.0
    done = run("run", "p", "--csv", "o.csv", "--restart")
    assert "2 images of earlier runs, which cost 12 credits, will be read and paid again" in done.stderr
    assert "1 job of the earlier run did not end or was not read" in done.stderr
    assert "1 job of the earlier run cancelled" in done.stderr
    newest, before = json.loads(run("jobs", "list", "--limit", "2", "--json").stdout)
    assert (newest["status"], before["status"]) == ("succeeded", "cancelled")
    assert len(rows(here / "o.csv")) == 6


def test_answers_that_the_service_deleted_are_in_the_next_price_before_they_are_paid_again(here, fake, service):
    fill(here / "p", [44, 45])
    fake.latency = 1
    process = started(service, here, "p", "--csv", "o.csv", "--json")
    with process:
        assert wait_for_event(process, "sent")
        process.kill()
    [job] = json.loads(run("jobs", "list", "--limit", "1", "--json").stdout)
    run("jobs", "watch", job["id"])
    with closing(sqlite3.connect(service.folder / "extract-image.db")) as sql, sql:
        sql.execute("UPDATE jobs SET expires_at = 1 WHERE id = ?", (job["id"],))
    refused = run("run", "p", "--csv", "o.csv", "--max-credits", "1", code=4)
    assert f"deleted the answers of job {job['id']}. Its 2 images will be sent, and paid, again" in refused.stderr
    assert "The run may cost 12 credits" in refused.stderr
    assert fake.sent == {44: 1, 45: 1}
    assert "will be sent, and paid, again" in run("run", "p", "--csv", "o.csv").stderr
    assert fake.sent == {44: 2, 45: 2}
    assert "paid, again" not in run("run", "p", "--csv", "o.csv").stderr


def test_files_urls_and_lists_are_mixed_and_a_pipe_gets_csv(here, site):
    fill(here / "p", [41])
    url = site.page("42.png", numbered_picture(42))
    done = run("run", "-", stdin=f"{here}/p\n{url}\n")
    [header, *lines] = done.stdout.splitlines()
    assert header == "file,result,status,error"
    assert sorted(line.split(",")[1] for line in lines) == ["picture 41", "picture 42"]


def test_failed_images_are_tried_again_when_asked_without_the_base_price(here, fake, service):
    fill(here / "p", [51, 52])
    charged = service.balance()["charged"]
    fake.blocked = {52}
    run("run", "p", "--csv", "o.csv", code=1)
    fake.blocked = set()
    run("run", "p", "--csv", "o.csv", code=1)
    assert fake.sent[51] <= 2  # the first call had both pictures, and was then asked again for one
    before = fake.sent[51]
    run("run", "p", "--csv", "o.csv", "--retry-failed")
    assert fake.sent[51] == before
    assert [row["status"] for row in rows(here / "o.csv")] == ["succeeded", "succeeded"]
    assert service.balance()["charged"] - charged == 10 + 2


def test_a_sample_is_read_first_and_not_again_with_the_rest(here, fake):
    fill(here / "p", range(60, 66))
    run("run", "p", "--csv", "o.csv", "--sample", "2")
    assert len(rows(here / "o.csv")) == 2
    run("run", "p", "--csv", "o.csv")
    assert len(rows(here / "o.csv")) == 6
    assert set(fake.sent.values()) == {1}


def test_an_estimate_sends_nothing_and_leaves_nothing(here, fake):
    fill(here / "p", [71, 72])
    assert "2 images in 1 job: at most 12 credits" in run("run", "p", "--csv", "o.csv", "--estimate").stdout
    assert json.loads(run("run", "p", "--estimate", "--json").stdout)["credits"] == 12
    assert not fake.sent
    assert [path.name for path in here.iterdir()] == ["p"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--key", "xim_wrong"], 4, "refuses the key"),
        (["--url", "http://127.0.0.1:9", "--key", "k"], 3, "does not answer"),
        (["--model", "none"], 2, "model must be one of"),
        (["--schema", "{"], 2, "not JSON"),
        (["--max-credits", "3"], 4, "--max-credits is 3"),
        (["--max-money", "0"], 4, "--max-money is 0"),
        (["--max-money", "nan"], 2, "a number of dollars"),
        (["--explode", "a"], 2, "needs a --schema"),
    ],
)
def test_what_cannot_work_ends_before_anything_is_sent(here, fake, options, code, says):
    fill(here / "p", [81])
    assert says in run("run", "p", "--csv", "o.csv", *options, code=code).stderr
    assert not fake.sent
    assert not (here / "o.csv").exists()
    assert not (here / "o.csv.state").exists()


def test_a_full_disk_is_named_and_what_was_read_is_kept(here, fake):
    fill(here / "p", [82])
    (here / "o.csv.part").symlink_to("/dev/full")
    done = run("run", "p", "--csv", "o.csv", code=2)
    assert "No space left on device. What was read is kept" in done.stderr
    run("run", "p", "--csv", "o.csv")
    assert fake.sent == {82: 1}


def test_events_are_json_lines_on_standard_error(here):
    fill(here / "p", [91])
    events = [json.loads(line) for line in run("run", "p", "--csv", "o.csv", "--json").stderr.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["found", "price", "sent", "finished"]
    assert events[-1]["rows"] == 1
    assert run("run", "p", "--csv", "o2.csv", "-q").stderr == ""


def started(service, folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "run", *arguments],
        cwd=folder,
        env={**os.environ, **environment(service, folder), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_event(process, name, times=1):
    """Reads events until one with this name has come so often. Returns whether it came."""
    for line in process.stderr:
        times -= json.loads(line)["event"] == name
        if times == 0:
            return True
    return False


@pytest.mark.parametrize(("event", "times"), [("price", 1), ("sent", 1), ("sent", 4)])
def test_after_a_kill_no_image_is_paid_twice_and_none_is_missing(here, fake, service, event, times):
    numbers = (
        range(1000 + 100 * times, 1012 + 100 * times) if event == "sent" else range(1000, 1012)
    )  # the same picture costs once
    fill(here / "p", numbers)
    arguments = ("p", "--csv", "o.csv", "--images-per-job", "2", "--json")
    fake.latency = 0.2
    charged = service.balance()["charged"]
    process = started(service, here, *arguments)
    with process:
        wait_for_event(process, event, times)
        process.kill()
    run("run", *arguments)
    assert [row["result"] for row in rows(here / "o.csv")] == [f"picture {number}" for number in numbers]
    assert set(fake.sent.values()) == {1}
    assert service.balance()["charged"] - charged == 6 * 10 + 12
    assert not (here / "o.csv.part").exists()


def test_ctrl_c_leaves_the_jobs_and_says_how_to_go_on(here, fake, service):
    fill(here / "p", range(120, 126))
    fake.latency = 1.5
    process = started(service, here, "p", "--csv", "o.csv", "--json")
    with process:
        wait_for_event(process, "sent")
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "Go on with: extract-image run p --csv o.csv" in said
    run("run", "p", "--csv", "o.csv")
    assert len(rows(here / "o.csv")) == 6
    assert set(fake.sent.values()) == {1}


def test_a_second_ctrl_c_cancels_the_jobs(here, fake, service):
    fill(here / "p", range(130, 136))
    fake.latency = 8
    process = started(service, here, "p", "--csv", "o.csv", "--json")
    with process:
        wait_for_event(process, "sent")
        process.send_signal(signal.SIGINT)
        assert wait_for_event(process, "detaching")
        process.send_signal(signal.SIGINT)
        assert "The jobs were cancelled" in process.stderr.read()
        assert process.wait(timeout=60) == 130
    fake.latency = 0.0
    run("run", "p", "--csv", "o.csv")
    assert len(rows(here / "o.csv")) == 6


def test_jobs_are_listed_shown_watched_and_deleted(here, service):
    fill(here / "p", [141])
    run("run", "p", "--csv", "o.csv")
    [job] = json.loads(run("jobs", "list", "--limit", "1", "--json").stdout)
    assert job["id"] in run("jobs", "list").stdout
    assert "1 of 1 images succeeded" in run("jobs", "show", job["id"]).stdout
    assert "is succeeded" in run("jobs", "watch", job["id"]).stdout
    assert "picture 141" in run("jobs", "results", job["id"], "--format", "csv").stdout
    assert "No image of this job failed" in run("jobs", "retry", job["id"], code=2).stderr
    assert "ended already" in run("jobs", "cancel", job["id"], code=2).stderr
    assert "is deleted" in run("jobs", "delete", job["id"]).stdout
    run("jobs", "show", job["id"], code=2)
    assert "credits available" in run("usage").stdout


def test_login_keeps_the_address_and_the_key_for_this_user_alone(here, service, monkeypatch):
    monkeypatch.delenv("EXTRACT_IMAGE_URL")
    monkeypatch.delenv("EXTRACT_IMAGE_KEY")
    assert "refuses the key" in run("login", "--url", service.url, "--key", "wrong", code=4).stderr
    run("usage", code=2)
    done = run("login", stdin=f"{service.url}/\n{service.key}\n")
    assert service.key not in done.output
    assert done.stderr == ""
    assert "API key is missing" in run("login", stdin=service.url, code=2).stderr
    kept = here / "xdg-config" / "extract-image" / "login.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "credits available" in run("usage").stdout


def test_the_model_proposes_a_schema(here, fake):
    fill(here / "p", [151, 152])
    schema = json.loads(run("schema", "suggest", "p", "-p", "What was bought?").stdout)
    assert schema["type"] == "object"
    assert schema["required"] == list(schema["properties"])
    (here / "s.json").write_text(json.dumps(schema))
    assert json.loads(run("schema", "check", "s.json").stdout) == schema
    assert "can't be used" in run("schema", "check", '{"type": 5}', code=2).stderr


def test_completion_prints_a_script():
    assert "_EXTRACT_IMAGE_COMPLETE" in run("completion", "zsh").stdout
