"""Says which locked packages have known faults: `python -m tools.audit PIP_AUDIT`, with the path of the command pip-audit.

The exit code is 0 if all packages were looked up and none has a known fault, 1 if one has, and 3 if some could not be looked up.
pip-audit itself says "No known vulnerabilities found" also if it could look up no package at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
FOUND, NOT_LOOKED = 1, 3
_SECONDS = 600


def judged(printed: str, errors: str) -> tuple[int, str]:
    """The exit code and what to print, by what pip-audit printed as JSON and to standard error."""
    try:
        packages = json.loads(printed)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = ([line for line in errors.splitlines() if line.strip()] or ["it said nothing"])[-1]
        return NOT_LOOKED, f"NOT AUDITED: pip-audit could not look: {last[:500]}"
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, repaired in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for package in packages
        for fault in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped or not packages:
        lines.append(
            f"NOT AUDITED: {len(skipped)} of {len(packages)} packages could not be looked up: {', '.join(skipped[:5])}"
            f"{', ...' if len(skipped) > 5 else ''}"
        )
    known = sum(bool(package.get("vulns")) for package in packages)
    lines.append(f"Audit: {len(packages) - len(skipped)} packages looked up, {known} with known faults.")
    return FOUND if known else NOT_LOOKED if skipped or not packages else 0, "\n".join(lines)


def main(command: str, lock: Path = LOCK) -> int:
    options = ["--requirement", str(lock), "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run([command, *options], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"NOT AUDITED: pip-audit could not be run: {error}")
        return NOT_LOOKED
    code, said = judged(done.stdout, done.stderr)
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
