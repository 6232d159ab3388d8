"""The command as `uv tool install .` and `pipx install .` put it on a user's PATH: without the checkout's folders beside it."""

from __future__ import annotations

import tomllib

from click.testing import CliRunner

from cli import demo
from cli.main import main
from testbed import ROOT


def test_every_folder_of_code_is_in_the_package():
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    tops = {name.split(".")[0] for name in packages}
    folders = {path.parent for top in tops for path in (ROOT / top).rglob("*.py")}
    assert packages == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_the_demo_says_where_its_pictures_are_if_they_are_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "EXAMPLES", tmp_path / "examples")
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 1
    assert "extract-image run FOLDER" in done.output
