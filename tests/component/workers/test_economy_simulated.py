"""The promise of economy jobs, with the real steps, a simulated model server, and a clock that jumps: see testbed/economy.py.

`bench/economy.py` does the same with 3000 images.
"""

from __future__ import annotations

import pytest

from pipeline.types import Tier
from testbed.economy import PATTERNS, town
from tests.fakes.flex import FlexServer
from tests.rows import quick_folder

IMAGES = 60  # 6 calls
FEW = {"IMAGES_PER_CALL": "10"}


@pytest.fixture
def folder():
    with quick_folder() as made:
        yield made


def standard_price(place):
    body = {"inputMethod": "url", "images": place.house.urls(IMAGES), "prompt": "p", "granularity": "perImage"}
    return place.house.ask("POST", "/api/v1/extract-image/estimate", json=body).json["money"]


def test_with_capacity_throughout_every_record_is_right_and_costs_half(folder):
    with town(folder, FlexServer(seed=1), **FEW) as place:
        job = place.post(IMAGES, tier="economy")
        place.run([job])
        end = place.ended(job)
        assert (end.status, end.wrong, end.economy) == ("succeeded", 0, IMAGES)
        assert end.money == pytest.approx(standard_price(place) / 2, rel=0.01)


def test_without_capacity_every_record_is_right_before_the_deadline_at_the_standard_price(folder):
    with town(folder, FlexServer(has_capacity=lambda _at: False), **FEW) as place:
        job = place.post(IMAGES, tier="economy", deadlineSeconds=2400)
        place.run([job])
        end = place.ended(job)
        assert (end.status, end.wrong, end.economy) == ("succeeded", 0, 0)
        assert end.left > 0
        assert place.clock.now > 1500, "it was not asked at the standard price before it had to be"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_with_capacity_that_comes_and_goes_nine_tenths_of_what_can_be_saved_is_saved_within_max_money(folder, pattern):
    has_capacity, shed = PATTERNS[pattern]
    with town(folder, FlexServer(seed=2, has_capacity=has_capacity, shed=shed), **FEW) as place:
        most = standard_price(place)
        job = place.post(IMAGES, tier="economy", maxMoney=most)
        place.run([job])
        end = place.ended(job)
        assert (end.status, end.wrong) == ("succeeded", 0)
        assert end.left > 0
        assert end.money <= most
        # In each pattern, a plan that knows the future has every call answered in economy, for half the price.
        assert most - end.money >= 0.9 * most / 2


@pytest.mark.parametrize("pattern", list(PATTERNS)[1:])
def test_images_that_fail_in_a_standard_job_fail_alike_in_an_economy_job_and_the_others_are_right(folder, pattern):
    has_capacity, shed = PATTERNS[pattern]
    with town(folder, FlexServer(seed=4, has_capacity=has_capacity, shed=shed, standard=0.2), **FEW) as place:
        place.engine.refused = frozenset({b"img3", b"img17"})
        urls = [*place.house.urls(18), "https://gone.example/", "http://127.0.0.1/"]
        jobs = [place.post(urls), place.post(urls, tier="economy", deadlineSeconds=14_400)]
        place.run(jobs)
        standard, slow = (place.ended(job) for job in jobs)
        assert slow.partition == standard.partition
        assert set(standard.partition) == {"right", "safety_blocked", "fetch_failed", "url_not_allowed"}
        assert slow.left > 0
        assert slow.money < standard.money


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_without_capacity_max_money_is_kept_and_what_it_does_not_suffice_for_says_so(folder, share):
    with town(folder, FlexServer(has_capacity=lambda _at: False), **FEW) as place:
        most = share * standard_price(place)
        job = place.post(IMAGES, tier="economy", deadlineSeconds=2400, maxMoney=most)
        place.run([job])
        end = place.ended(job)
        assert (end.status, set(end.partition)) == ("partial", {"right", "deadline_exceeded"})
        assert end.money <= most
        assert end.partition.count("right") == 10 * int(6 * share + 0.01), "as many calls as the money suffices for"
        failed = place.house.get(f"/api/v1/jobs/{job}/items?status=failed").json["items"]
        assert all("maxMoney" in item["message"] for item in failed)


def test_slow_calls_that_fill_all_their_threads_delay_no_standard_job(folder):
    with town(folder, FlexServer(seed=3, seconds=(800, 900)), slow=2, **FEW) as place:
        alone = place.post(1)
        place.run([alone])
        idle = place.clock.now
        slow = [place.post(IMAGES, tier="economy") for _ in range(3)]
        place.run_until(lambda: place.engine.asked[Tier.ECONOMY] == 2)
        begun = place.clock.now
        beside = place.post(1)
        place.run([beside])
        assert place.clock.now - begun <= 1.2 * idle
        place.run(slow)
        assert [place.ended(job).status for job in slow] == ["succeeded"] * 3
