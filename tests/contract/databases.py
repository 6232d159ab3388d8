"""The databases that a module of contract tests runs with."""

from __future__ import annotations

import pytest


def also_through_pgbouncer(metafunc: pytest.Metafunc) -> None:
    """For `pytest_generate_tests` of a module: runs each test that names no database itself also through PgBouncer, where each transaction may get another connection."""
    named = any("database_url" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "database_url" in metafunc.fixturenames and not named:
        # A mark, because pytest then leaves out the fixture's own kinds.
        metafunc.definition.add_marker(
            pytest.mark.parametrize("database_url", ["sqlite", "postgres", "pgbouncer"], indirect=True)
        )
