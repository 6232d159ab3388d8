"""The documents lead to each other, and to things that exist."""

from __future__ import annotations

import re

import pytest
from opentelemetry import environment_variables as otel
from opentelemetry.sdk import environment_variables as otel_sdk

from cli.main import main
from config.settings import SECRETS, Settings
from tests.docs.markdown import DOCUMENTS, NAMES, ROOT, anchors, inline_code, links, read

#: Names in capitals that are no settings of the service.
OTHERS = {
    "URL",
    "KEY",
    "PYTHON",
    "WEB_CONCURRENCY",
    "TMPDIR",
    "PUBLISH",
    "SITE",
    "WEB_REPLICAS",
    "WORKER_REPLICAS",
    "COMPOSE_FILE",
    "TOKEN",
    "HTTP_PROXY",
    "NO_PROXY",
    "RES_OPTIONS",
} | {
    "EXTRACT_IMAGE_URL",
    "EXTRACT_IMAGE_KEY",
    *("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD"),
}
PLACE = re.compile(
    r"(?:api|bench|cli|deploy|docs|examples|pipeline|storage|tests|workers|\.ci)/[\w./-]*|[A-Z][A-Za-z]+file|[\w.-]+\.(?:toml|lock|md)"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_document_and_a_heading_that_exist(name):
    for target in links(name):
        path, _, anchor = target.partition("#")
        found = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(str(found.relative_to(ROOT))), target


def test_every_document_can_be_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in reached or not name.endswith(".md"):
            continue
        reached.add(name)
        paths = [((ROOT / name).parent / target.partition("#")[0]).resolve() for target in links(name) if target[0] != "#"]
        waiting += [str(path.relative_to(ROOT)) for path in paths if path.is_file()]
    assert set(NAMES) - reached == set()


def test_the_readme_fits_on_one_screen():
    assert len(read("README.md").splitlines()) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_every_file_and_folder_that_is_named_exists(name):
    for code in inline_code(name):
        if PLACE.fullmatch(code):
            assert (ROOT / code).exists(), code


@pytest.mark.parametrize("name", NAMES)
def test_every_command_that_is_named_exists(name):
    makefile = (ROOT / "Makefile").read_text()
    for code in inline_code(name):
        words = code.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), code
        if words[0] == "extract-image":
            command = main
            for word in words[1:]:
                command = command.commands[word]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_is_named_exists(name):
    settings = {field.upper() for field in Settings.model_fields} | {f"{secret}_FILE" for secret in SECRETS} | OTHERS
    settings |= {name for name in (*dir(otel), *dir(otel_sdk)) if name.startswith("OTEL_")}
    for code in inline_code(name):
        setting = code.partition("=")[0]
        if re.fullmatch(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[A-Z]{5,}", setting):
            assert setting in settings, code


def test_every_decision_has_its_place_in_the_list_and_its_three_parts():
    for path in DOCUMENTS:
        if re.match(r"\d{4}-", path.name):
            name = str(path.relative_to(ROOT))
            assert path.name in links("docs/adr/README.md")
            assert re.findall(r"^## (.+)$", read(name), re.MULTILINE) == ["Context", "Decision", "Consequence"]
