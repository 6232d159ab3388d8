"""A worker may open as many files as its threads need, as far as its system allows."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from workers.app import open_more_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
open_more_files(100)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "found"), [(256, 4000, "1324 4000"), (256, 512, "512 512"), (2000, 4000, "2000 4000")])
def test_the_limit_of_open_files_is_raised_as_far_as_needed_and_allowed(soft, hard, found):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < hard:
        pytest.skip(f"this system allows {most} open files")
    program = [sys.executable, "-c", PROGRAM.format(soft=soft, hard=hard)]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout.split() == found.split()
