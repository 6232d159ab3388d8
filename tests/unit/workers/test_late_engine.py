"""The engine is built when a step needs it: once, by whichever thread is first."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from testbed import ROOT
from tests.fakes.engine import FakeEngine
from workers.late_engine import LateEngine


def late(build):
    return LateEngine(build, name="fake", model="a", warnings=("odd",))


def test_its_name_model_and_warnings_are_known_before_it_is_built():
    engine = late(lambda: pytest.fail("not needed"))
    assert (engine.name, engine.model, engine.warnings) == ("fake", "a", ("odd",))
    engine.close()


def test_it_is_built_once_however_many_threads_need_it():
    built = []
    together = threading.Barrier(8)

    def build():
        built.append(FakeEngine())
        return built[-1]

    engine = late(build)

    def need() -> None:
        together.wait()
        engine.load_soon()
        assert engine.limits == built[0].limits

    threads = [threading.Thread(target=need) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_a_step_that_comes_after_one_that_could_not_build_it_tries_again():
    faults = [RuntimeError("no")]

    def build():
        if faults:
            raise faults.pop()
        return FakeEngine()

    engine = late(build)
    with pytest.raises(RuntimeError):
        _ = engine.limits
    assert engine.limits == FakeEngine().limits


def test_an_idle_worker_imports_no_package_of_a_vendor():
    what = "import sys, cli.main, workers.app, workers.engine_watch; sys.exit('google.genai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", what], cwd=ROOT, check=False).returncode == 0
