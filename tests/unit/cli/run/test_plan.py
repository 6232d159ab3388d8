"""How images are cut into jobs, and the keys of the jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cli.run.plan import Limits, custom_id, how_many_fit, job_fields, job_key, job_sizes
from cli.run.types import Image

LIMITS = Limits(images=3, image_bytes=60, total_bytes=100)


def image(name="a.png", sha256="1" * 64, tries=0):
    return Image(1, name, f"/pictures/{name}", 5, sha256, tries)


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=5), st.integers(0, 60)), max_size=40))
def test_jobs_take_every_image_once_and_keep_the_limits(images):
    images.sort(key=lambda each: each[0])
    left = list(images)
    for size in job_sizes(images, LIMITS):
        job, left = left[:size], left[size:]
        assert 1 <= len(job) <= 3
        assert sum(each[2] for each in job) <= 100
        assert len({each[0] for each in job}) == 1
    assert left == []


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 60)), max_size=40))
def test_the_price_counts_the_jobs_that_are_sent(images):
    counted = list(job_sizes([(False, *each) for each in images], LIMITS))
    left, sent = list(images), []
    while left:
        sent.append(how_many_fit(left, LIMITS))
        left = left[sent[-1] :]
    assert sent == counted


def test_the_names_of_a_job_fit_into_its_fields():
    names = [("ü" * 200, 1)] * 4000
    limits = Limits(images=3000, image_bytes=10, total_bytes=10**9)
    assert sum(len(name.encode()) for name, _ in names[: how_many_fit(names, limits)]) < 2 << 20


def test_a_long_name_keeps_its_end():
    assert custom_id("a/b.png") == "a/b.png"
    assert len(custom_id("x" * 300 + "/b.png")) == 256
    assert custom_id("x" * 300 + "/b.png").endswith("/b.png")


def test_the_same_content_has_the_same_key_and_any_change_another():
    def key(images, salt="", **fields):
        return job_key(job_fields({"prompt": "p", **fields}, images, keep=False, max_money=None, of_images=1), images, salt=salt)

    base = key([image()])
    assert base == key([image()])
    others = [
        key([image()], prompt="q"),
        key([image()], salt="s"),
        key([image(sha256="2" * 64)]),
        key([image(tries=1)]),
        key([image(name="b.png")]),
        key([image(), image()]),
    ]
    assert len({base, *others}) == 7


def test_each_job_gets_its_share_of_the_money():
    fields = job_fields({}, [image()] * 5, keep=True, max_money=2.0, of_images=20)
    assert fields["maxMoney"] == 0.5
    assert fields["keepInputsSeconds"] > 0
