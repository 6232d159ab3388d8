"""The state file: what it keeps over runs and kills."""

from __future__ import annotations

import pytest

from cli.exits import CommandFault
from cli.run.scan import Found
from cli.run.state import State


@pytest.fixture
def state(tmp_path):
    opened = State(tmp_path / "out.csv.state")
    yield opened
    opened.close()


def found(number, **facts):
    return Found(**{"name": f"{number}.png", "source": f"/pictures/{number}.png", "size": 10, "mtime": 1, **facts})


def begin(state, *images):
    state.begin_scan()
    state.add(images)


def send(state, key="key"):
    _, images = state.take_new(100)
    state.pack(images)
    images = [image._replace(sha256="1" * 64) for image in images]
    state.set_hashes(images)
    return state.accepted(state.write_job(key, {"prompt": "p"}, images), "job_1")


def names(rows):
    return [row.name for row in rows]


def test_what_is_done_is_not_sent_again(state):
    begin(state, found(1), found(2))
    state.take_outcomes(send(state), [(0, "", "", {"a": 1}), (1, "image_corrupt", "broken", None)])
    begin(state, found(1), found(2), found(3))
    state.try_again(also_lasting=False)
    assert names(state.take_new(9)[1]) == ["3.png"]
    assert [(row.state, row.result) for row in state.rows()] == [("done", {"a": 1}), ("failed", None), ("new", None)]


def test_a_failure_that_may_pass_is_sent_again_and_with_its_flag_every_failure(state):
    begin(state, found(1), found(2), found(3, code="image_empty", message="empty"))
    state.take_outcomes(send(state), [(0, "deadline_exceeded", "late", None), (1, "image_corrupt", "broken", None)])
    state.try_again(also_lasting=False)
    assert [(image.name, image.tries) for image in state.take_new(9)[1]] == [("1.png", 1)]
    state.try_again(also_lasting=True)
    assert names(state.take_new(9)[1]) == ["1.png", "2.png"]


def test_a_job_is_known_with_its_images_after_a_kill_at_any_moment(tmp_path, state):
    begin(state, found(1), found(2))
    _, images = state.take_new(1)
    state.pack(images)
    state.close()  # a kill leaves the file as it is
    second = State(tmp_path / "out.csv.state")
    begin(second, found(1), found(2))
    assert names(second.take_new(9)[1]) == ["1.png", "2.png"]
    _, images = second.take_new(1)
    second.write_job("key", {"prompt": "p"}, images)
    second.close()
    third = State(tmp_path / "out.csv.state")
    begin(third, found(1), found(2))
    [job] = third.unfinished_jobs()
    assert (job.key, job.id, names(third.images_of(job))) == ("key", "", ["1.png"])
    assert names(third.take_new(9)[1]) == ["2.png"]
    third.close()


def test_an_image_with_new_content_leaves_its_job(state):
    begin(state, found(1), found(2))
    job = send(state)
    begin(state, found(1, mtime=2), found(2))
    [changed] = state.changed_files()
    state.begin_anew(changed)
    assert names(state.images_of(job)) == ["2.png"]
    state.take_outcomes(job, [(0, "", "", "old"), (1, "", "", "kept")])
    assert [(row.state, row.result) for row in state.rows()] == [("new", None), ("done", "kept")]


def test_images_of_which_the_job_says_nothing_are_sent_anew(state):
    begin(state, found(1), found(2))
    state.take_outcomes(send(state), [(0, "", "", "text")])
    assert [(image.name, image.tries) for image in state.take_new(9)[1]] == [("2.png", 1)]


def test_a_file_that_is_gone_has_no_row(state):
    begin(state, found(1), found(2))
    begin(state, found(2))
    assert names(state.rows()) == ["2.png"]


def test_a_sample_is_spread_evenly_and_the_same_each_time(state):
    for _ in range(2):
        begin(state, *(found(number) for number in range(1, 10)))
        state.choose_sample(3)
        assert names(state.rows()) == ["1.png", "4.png", "7.png"]


def test_files_and_urls_never_share_a_job(state):
    begin(state, found(1), Found(name="u", source="https://pictures.example/u", is_url=True), found(2))
    assert (state.take_new(9)[0], names(state.take_new(9)[1])) == (False, ["1.png", "2.png"])


def test_a_second_run_cannot_use_the_file(tmp_path, state):
    with pytest.raises(CommandFault, match="Another run"):
        State(tmp_path / "out.csv.state")


def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path):
    (tmp_path / "x.state").write_text("something else, long enough to be no database at all " * 50)
    with pytest.raises(CommandFault, match="can't be used"):
        State(tmp_path / "x.state")


def test_a_file_is_untouched_until_a_job_is_written_down(state):
    begin(state, found(1), found(2, code="image_empty", message="empty"))
    assert state.untouched()
    job = send(state)
    assert not state.untouched()
    state.take_outcomes(job, [(0, "", "", {"a": 1})])
    assert not state.untouched()


def test_a_file_that_cannot_be_made_is_a_question_of_its_folder(tmp_path):
    with pytest.raises(CommandFault, match="Check the permissions"):
        State(tmp_path / "none" / "out.csv.state")


def test_only_its_owner_may_read_it(tmp_path, state):
    assert (tmp_path / "out.csv.state").stat().st_mode & 0o777 == 0o600


def test_a_new_state_takes_the_place_of_the_old_one_at_once(tmp_path, state):
    begin(state, found(1), found(2))
    send(state)
    fresh = State(None)
    fresh.set_fact("salt", "s")
    begin(fresh, found(3))
    state.become(fresh)
    fresh.close()
    assert (names(state.rows()), state.unfinished_jobs(), state.fact("salt", "")) == (["3.png"], [], "s")
    with pytest.raises(CommandFault, match="Another run"):
        State(tmp_path / "out.csv.state")
    state.close()
    again = State(tmp_path / "out.csv.state")
    assert names(again.rows()) == ["3.png"]
    again.close()
