"""Builds the site: `python -m tools.site [FOLDER]`, into `site/` if no folder is named.

It writes the pages into a temporary folder, has Zensical build them in strict mode, and checks the result. The code is 1, and nothing
is written, if Zensical warns of anything or a link is broken.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from tools.site.links import Site
from tools.site.navigation import as_toml, navigation
from tools.site.pages import ROOT, write_sources

HERE = Path(__file__).parent


def build(target: Path, root: Path = ROOT) -> list[str]:
    """Builds the site of the documents in `root` into the folder `target`, which it replaces. Returns what is wrong; empty if nothing."""
    with tempfile.TemporaryDirectory(prefix="site-") as folder:
        work = Path(folder)
        (work / "pages").mkdir()
        write_sources(work / "pages", root)
        _add_assets(work / "pages" / "assets")
        shutil.copytree(HERE / "theme", work / "theme")
        settings = (HERE / "zensical.toml").read_text(encoding="utf-8")
        written = settings.replace("nav = []", f"nav = {as_toml(navigation(root))}")
        (work / "zensical.toml").write_text(written, encoding="utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        ran = subprocess.run(command, cwd=work, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False)
        if ran.returncode or not (work / "site" / "index.html").is_file():
            return [f"Zensical did not build the site (exit code {ran.returncode}):", ran.stdout.strip(), ran.stderr.strip()]
        if found := list(Site(work / "site").faults()):
            return found
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work / "site", target)
    return []


def _add_assets(folder: Path) -> None:
    """The style sheet, and Mermaid's own file for browsers out of the package that brings it."""
    folder.mkdir()
    shutil.copyfile(HERE / "extra.css", folder / "extra.css")
    # The package itself is not imported: it would start an engine for JavaScript.
    shutil.copyfile(Path(str(distribution("mermaidx").locate_file("mermaidx/assets/mermaid.js"))), folder / "mermaid.js")


def main() -> int:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve()
    if found := build(target):
        print(*found, sep="\n")
        return 1
    site = Site(target)
    print(
        f"{len(site.pages)} pages are in {target}. To read them: {sys.executable} -m http.server --bind 127.0.0.1 --directory {target}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
