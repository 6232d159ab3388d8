"""The parts that keep their data in a folder take a folder of any name. `serve` does so as a whole in tests/e2e/test_hostile.py."""

from __future__ import annotations

import io
from contextlib import closing

import pytest
from redis import Redis

from config.settings import load_settings
from storage.database import Database, migrate, schema_is_current
from storage.redis.embedded import EmbeddedRedis
from storage.scratch.open import open_scratch
from tests.rows import quick_folder


@pytest.mark.parametrize("name", ["with spaces", "ünïcode ☃", "100%25 a%41b", "why?not", "a#b&c=d"])
def test_the_data_may_lie_in_a_folder_of_any_name(name):
    with quick_folder() as folder:
        settings = load_settings({"DATA_DIR": str(folder / name)})
        settings.data_dir.mkdir()
        with closing(Database(settings.database_url)) as database:
            migrate(database)
            assert schema_is_current(database)
        open_scratch(settings).put("job/object", io.BytesIO(b"x"))
        with EmbeddedRedis(settings.data_dir / "redis") as server, Redis.from_url(server.url) as client:
            assert client.ping()
        assert (folder / name / "extract-image.db").is_file()
        assert (folder / name / "scratch" / "job" / "object").is_file()
        assert [path.name for path in folder.iterdir()] == [name]
