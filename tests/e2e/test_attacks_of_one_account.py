"""One account attacks in every way that it has, and another account's image, job and webhook take at most twice as long."""

from __future__ import annotations

import json

import pytest

from testbed import production, serving
from tests.e2e.neighbours import ATTACKS, IN_PRODUCTION, SETTINGS, assert_not_slowed, many_files, scene
from tests.fakes.gemini import FakeGemini

pytestmark = [pytest.mark.slow, pytest.mark.alone]
ODD_NAMES = "tests.fakes.odd_names"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks") / "data"
    with many_files(), FakeGemini() as fake:
        settings = {**SETTINGS, "GEMINI_API_KEY": fake.key, "GEMINI_BASE_URL": fake.base_url}
        with serving(folder, (ODD_NAMES,), **settings) as service:
            key = json.loads(service.cli("keys", "create", "attacker", "--credits", "1000000", "--json"))["key"]
            with scene(service, key, fake) as made:
                yield made, made.seconds()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, postgres_server, s3):
    folder = tmp_path_factory.mktemp("attacked")
    names = ("web-1", "worker-1", "supervisor")
    with (
        many_files(),
        FakeGemini() as fake,
        production(folder, server=postgres_server, s3=s3, fake=fake, names=names, command=ODD_NAMES, **SETTINGS) as started,
        scene(started.client("web-1", started.new_key()), started.new_key(1_000_000), fake) as made,
    ):
        yield made, made.seconds()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_takes_no_time_from_another_account_s_image_job_and_webhook(house, attack):
    scene, idle = house
    assert_not_slowed(scene, attack, idle)


@pytest.mark.parametrize("attack", IN_PRODUCTION)
def test_on_production_s_parts_an_attack_takes_no_time_from_another_account_either(cluster, attack):
    scene, idle = cluster
    assert_not_slowed(scene, attack, idle)
