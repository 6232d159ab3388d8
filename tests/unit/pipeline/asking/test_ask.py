from __future__ import annotations

import json
from math import log2
from typing import Any

import pytest

from pipeline.asking.ask import RE_ASKS, ChunkOutcome, ask
from pipeline.ports import ModelFault, ModelRefused, ModelUnavailable
from pipeline.types import Answer, Call, Finish, ItemCode, Question, Staged
from tests.fakes.engine import FakeEngine, answer_text

TEXT = Question(prompt="p")
JSON = Question(prompt="p", json_mode=True)
RECORDS = Question(prompt="p", per_image=True)


def staged(*indexes: int, size: int = 10) -> list[Staged]:
    return [Staged(index=index, mime="image/png", size=size, received=size, sha256="", width=1, height=1) for index in indexes]


def run(engine: FakeEngine, images: list[Staged], question: Question = TEXT, **options: Any) -> list[ChunkOutcome]:
    def load(index: int) -> bytes:
        return f"i{index}".encode()

    return list(ask(images, engine=engine, question=question, load=load, timeout=lambda: 9.0, **options))


def replied(outcomes: list[ChunkOutcome]) -> list[int]:
    return [index for outcome in outcomes for reply in outcome.replies for index in reply.indexes]


def failed(outcomes: list[ChunkOutcome]) -> dict[int, ItemCode]:
    return {failure.index: failure.code for outcome in outcomes for failure in outcome.failures}


def shown(call: Call) -> list[str]:
    return [picture.data.decode() for picture in call.pictures]


def blocks(*culprits: str):
    def script(call: Call, _number: int) -> Answer | None:
        if set(culprits) & set(shown(call)):
            return Answer(finish=Finish.BLOCKED, code=ItemCode.SAFETY_BLOCKED, detail="SAFETY")
        return None

    return script


def test_images_that_fit_are_asked_about_in_one_call():
    engine = FakeEngine()
    outcomes = run(engine, staged(0, 1, 2))
    assert len(engine.calls) == 1
    assert replied(outcomes) == [0, 1, 2]
    assert engine.calls[0].timeout == 9.0


def test_merged_calls_label_pictures_with_their_number_in_the_job():
    engine = FakeEngine()
    run(engine, staged(50, 51, 53))
    assert [picture.number for picture in engine.calls[0].pictures] == [51, 52, 54]


def test_records_are_labelled_from_one_in_each_call_and_mapped_back():
    engine = FakeEngine(pictures=2)
    outcomes = run(engine, staged(7, 9, 11), RECORDS)
    assert [[picture.number for picture in call.pictures] for call in engine.calls] == [[1, 2], [1]]
    results = {reply.indexes[0]: reply.result for outcome in outcomes for reply in outcome.replies}
    assert results == {7: "i7", 9: "i9", 11: "i11"}


def test_records_out_of_order_go_to_their_own_images():
    def script(call: Call, _number: int) -> Answer:
        return Answer(finish=Finish.COMPLETE, text=json.dumps(json.loads(answer_text(call))[::-1]))

    outcomes = run(FakeEngine(script=script), staged(0, 1, 2), RECORDS)
    assert {reply.indexes[0]: reply.result for o in outcomes for reply in o.replies} == {0: "i0", 1: "i1", 2: "i2"}


def test_a_blocked_image_is_found_by_bisection_and_the_others_are_kept():
    engine = FakeEngine(script=blocks("i5"))
    outcomes = run(engine, staged(*range(16)))
    assert failed(outcomes) == {5: ItemCode.SAFETY_BLOCKED}
    assert sorted(replied(outcomes)) == [index for index in range(16) if index != 5]
    assert len(engine.calls) <= 1.5 * 1 + 2 * 1 * log2(16)


def test_a_blocked_set_is_never_sent_again():
    engine = FakeEngine(script=blocks("i3", "i4", "i12"))
    run(engine, staged(*range(16)))
    sets = [tuple(shown(call)) for call in engine.calls]
    assert len(sets) == len(set(sets))


def test_a_truncated_answer_is_split_and_a_single_image_that_overflows_fails():
    def script(call: Call, _number: int) -> Answer | None:
        if len(call.pictures) > 2 or "i1" in shown(call):
            return Answer(finish=Finish.TRUNCATED, text='{"half', input_tokens=5, output_tokens=8192)
        return None

    outcomes = run(FakeEngine(script=script), staged(0, 1, 2, 3), JSON)
    assert failed(outcomes) == {1: ItemCode.OUTPUT_TRUNCATED}
    assert sorted(replied(outcomes)) == [0, 2, 3]
    assert sum(outcome.usage.output_tokens for outcome in outcomes) > 8192  # what was cut off was billed too


def test_malformed_json_is_split_and_a_single_image_is_asked_for_again_at_most_twice():
    def script(call: Call, _number: int) -> Answer | None:
        return Answer(finish=Finish.COMPLETE, text='{"a": 1') if "i1" in shown(call) else None

    engine = FakeEngine(script=script)
    outcomes = run(engine, staged(0, 1), JSON)
    assert failed(outcomes) == {1: ItemCode.SCHEMA_MISMATCH}
    assert [shown(call) for call in engine.calls] == [["i0", "i1"], ["i0"], ["i1"], ["i1"]]
    assert sum("i1" in shown(call) for call in engine.calls) == 1 + RE_ASKS


def test_only_missing_and_doubled_records_are_asked_for_again():
    def script(call: Call, number: int) -> Answer | None:
        if number > 1:
            return None
        said = [
            {"index": 1, "result": "i0"},
            {"index": 2, "result": "x"},
            {"index": 2, "result": "y"},
        ]
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said))

    engine = FakeEngine(script=script)
    outcomes = run(engine, staged(0, 1, 2), RECORDS)
    assert [shown(call) for call in engine.calls] == [["i0", "i1", "i2"], ["i1", "i2"]]
    assert {reply.indexes[0]: reply.result for o in outcomes for reply in o.replies} == {0: "i0", 1: "i1", 2: "i2"}


def test_a_fault_is_tried_once_more_and_then_the_call_is_split():
    def script(call: Call, _number: int) -> Exception | None:
        return ModelFault("HTTP 500") if "i2" in shown(call) else None

    engine = FakeEngine(script=script)
    outcomes = run(engine, staged(0, 1, 2, 3))
    assert failed(outcomes) == {2: ItemCode.MODEL_UNAVAILABLE}
    assert sorted(replied(outcomes)) == [0, 1, 3]
    assert [len(call.pictures) for call in engine.calls] == [4, 4, 2, 2, 1, 1]


def test_a_request_the_model_will_never_take_fails_its_images():
    outcomes = run(FakeEngine(script=lambda _c, _n: ModelRefused("bad request")), staged(0, 1))
    assert set(failed(outcomes).values()) == {ItemCode.MODEL_REFUSED}


def test_of_an_answer_that_numbers_the_images_in_its_own_way_nothing_is_taken():
    def from_zero(call: Call, number: int) -> Answer | None:
        said = json.loads(answer_text(call))
        for record in said:
            record["index"] -= 1
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said)) if number == 1 else None

    engine = FakeEngine(script=from_zero)
    outcomes = run(engine, staged(0, 1, 2, 3), RECORDS)
    assert {reply.indexes[0]: reply.result for o in outcomes for reply in o.replies} == {i: f"i{i}" for i in range(4)}
    assert [shown(call) for call in engine.calls] == [["i0", "i1", "i2", "i3"], ["i0", "i1"], ["i2", "i3"]]


def test_of_an_answer_about_one_image_what_is_said_of_others_is_left_out():
    said = [{"index": 1, "result": "i0"}, {"index": 2, "result": "none such"}]
    engine = FakeEngine(script=lambda _call, _number: Answer(finish=Finish.COMPLETE, text=json.dumps(said)))
    outcomes = run(engine, staged(0), RECORDS)
    assert [reply.result for outcome in outcomes for reply in outcome.replies] == ["i0"]


SCHEMA = Question(prompt="p", per_image=True, schema={"type": "object"})


def fits(result: object) -> str:
    return "" if isinstance(result, dict) and "saw" in result else "/saw is missing"


def test_a_result_that_does_not_fit_the_schema_is_asked_for_again_alone_with_what_was_wrong():
    def script(call: Call, number: int) -> Answer | None:
        said = json.loads(answer_text(call))
        if number == 1:
            said[1]["result"] = {"seen": 1}
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said))

    engine = FakeEngine(script=script)
    outcomes = run(engine, staged(4, 5, 6), SCHEMA, validate=fits)
    assert [shown(call) for call in engine.calls] == [["i4", "i5", "i6"], ["i5"]]
    assert [call.schema for call in engine.calls] == [{"type": "object"}] * 2
    assert engine.calls[0].prompt == "p"
    assert engine.calls[1].prompt.startswith("p\n")
    assert "Image 1: its result does not fit the schema: /saw is missing" in engine.calls[1].prompt
    assert sorted(replied(outcomes)) == [4, 5, 6]


def test_a_result_that_never_fits_fails_after_two_more_tries_and_says_why():
    def script(call: Call, _number: int) -> Answer:
        said = [{"index": p.number, "result": {"saw": 1} if p.data != b"i1" else 7} for p in call.pictures]
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said))

    engine = FakeEngine(script=script)
    outcomes = run(engine, staged(0, 1, 2), SCHEMA, validate=fits)
    [failure] = [failure for outcome in outcomes for failure in outcome.failures]
    assert (failure.index, failure.code) == (1, ItemCode.SCHEMA_MISMATCH)
    assert "/saw is missing" in failure.detail
    assert [shown(call) for call in engine.calls] == [["i0", "i1", "i2"], ["i1"], ["i1"]]


def test_a_request_may_have_fewer_images_in_a_call_than_the_engine_takes():
    engine = FakeEngine(pictures=20)
    run(engine, staged(*range(5)), Question(prompt="p", per_image=True, images_per_call=2))
    assert [len(call.pictures) for call in engine.calls] == [2, 2, 1]


def test_the_half_that_must_hold_the_culprit_is_not_sent_as_a_whole():
    engine = FakeEngine(script=blocks("i7"))
    run(engine, staged(*range(8)))
    assert [shown(call) for call in engine.calls] == [
        [f"i{index}" for index in range(8)],
        ["i0", "i1", "i2", "i3"],
        ["i4", "i5"],
        ["i6"],
        ["i7"],
    ]


def test_a_turn_that_ends_early_is_gone_on_from_and_sends_no_refused_set_again():
    first = FakeEngine(
        script=lambda call, number: ModelUnavailable("429", retry_after=1) if number == 3 else blocks("i1")(call, 0)
    )
    turn = ask(staged(*range(8)), engine=first, question=TEXT, load=lambda index: f"i{index}".encode(), timeout=lambda: 1.0)
    outcomes = [next(turn), next(turn)]
    with pytest.raises(ModelUnavailable):
        next(turn)
    kept = json.loads(json.dumps(outcomes[-1].progress))
    settled = set(replied(outcomes)) | set(failed(outcomes))
    second = FakeEngine(script=blocks("i1"))
    rest = [index for index in range(8) if index not in settled]
    outcomes += run(second, staged(*rest), progress=kept)
    sets = [tuple(shown(call)) for call in (*first.calls[:2], *second.calls)]
    assert len(sets) == len(set(sets))
    assert failed(outcomes) == {1: ItemCode.SAFETY_BLOCKED}
    assert sorted(replied(outcomes)) == [0, 2, 3, 4, 5, 6, 7]


def test_what_was_wrong_with_a_merged_answer_is_told_by_the_job_s_own_numbers():
    engine = FakeEngine(script=lambda _call, number: Answer(finish=Finish.COMPLETE, text="{") if number == 1 else None)
    run(engine, staged(6), JSON)
    assert "\nImage 7: your answer was not valid JSON" in engine.calls[1].prompt


def test_an_image_that_no_earlier_turn_knew_of_is_asked_for_too():
    engine = FakeEngine(script=lambda _call, number: Answer(finish=Finish.TRUNCATED) if number == 1 else None)
    turn = ask(staged(0, 1), engine=engine, question=TEXT, load=lambda index: f"i{index}".encode(), timeout=lambda: 1.0)
    kept = next(turn).progress
    assert sorted(replied(run(FakeEngine(), staged(0, 1, 2), progress=kept))) == [0, 1, 2]


def test_a_model_that_cannot_be_asked_leaves_earlier_outcomes_standing():
    def script(_call: Call, number: int) -> Exception | None:
        return ModelUnavailable("429", retry_after=3) if number == 2 else None

    outcomes = ask(
        staged(0, 1), engine=FakeEngine(pictures=1, script=script), question=TEXT, load=lambda _i: b"x", timeout=lambda: 1.0
    )
    assert replied([next(outcomes)]) == [0]
    with pytest.raises(ModelUnavailable):
        next(outcomes)


def test_a_model_that_gives_one_record_a_call_is_asked_about_ever_fewer_images_until_it_has_given_all():
    def first_only(call: Call, _number: int) -> Answer:
        return Answer(finish=Finish.COMPLETE, text=json.dumps(json.loads(answer_text(call))[:1]))

    engine = FakeEngine(script=first_only)
    outcomes = run(engine, staged(*range(40)), RECORDS)
    assert failed(outcomes) == {}
    assert sorted(replied(outcomes)) == list(range(40))
    assert [len(call.pictures) for call in engine.calls[:4]] == [40, 39, 19, 9]
    assert len(engine.calls) <= 2 * 40


def test_missing_records_are_asked_for_together_once_and_then_in_halves():
    def says_nothing_of(call: Call, _number: int) -> Answer:
        said = [record for record in json.loads(answer_text(call)) if record["result"] != "i6"]
        return Answer(finish=Finish.COMPLETE, text=json.dumps(said if len(call.pictures) < 5 else said[:4]))

    engine = FakeEngine(script=says_nothing_of)
    outcomes = run(engine, staged(*range(8)), RECORDS)
    assert failed(outcomes) == {6: ItemCode.SCHEMA_MISMATCH}
    assert [shown(call) for call in engine.calls] == [
        [f"i{index}" for index in range(8)],
        ["i4", "i5", "i6", "i7"],
        ["i6"],
    ]


def takes(most: int, *, says: bool):
    def script(call: Call, _number: int) -> Answer | None:
        if len(call.pictures) > most:
            return Answer(finish=Finish.UNREADABLE, code=ItemCode.MODEL_REFUSED, at_most=most if says else None)
        return None

    return script


@pytest.mark.parametrize("most", [1, 3, 5])
def test_all_groups_are_cut_to_what_the_model_says_that_it_takes(most):
    engine = FakeEngine(script=takes(most, says=True))
    outcomes = run(engine, staged(*range(20)), RECORDS, pictures=10)
    assert sorted(replied(outcomes)) == list(range(20))
    assert len(engine.calls) == 1 + 2 * -(-10 // most)


def test_a_model_of_one_picture_a_call_is_found_out_without_words_and_its_engine_is_told():
    engine = FakeEngine(script=takes(1, says=False))
    outcomes = run(engine, staged(*range(16)), RECORDS)
    assert sorted(replied(outcomes)) == list(range(16))
    assert len(engine.calls) == 16 + 4
    assert engine.learnt == {"": 1}
    run(engine, staged(*range(16)), RECORDS)
    assert len(engine.calls) == 16 + 4 + 16


def test_a_model_is_not_thought_to_take_one_picture_because_of_a_bad_one():
    engine = FakeEngine(script=blocks("i0", "i1"))
    run(engine, staged(*range(16)), RECORDS)
    assert engine.learnt == {}


def test_a_picture_refused_for_good_is_a_culprit_so_the_other_half_is_sent_as_a_whole():
    def script(call: Call, _number: int) -> Answer | Exception | None:
        if "i0" not in shown(call):
            return None
        return Answer(finish=Finish.UNREADABLE) if len(call.pictures) > 1 else ModelRefused("HTTP 400")

    engine = FakeEngine(script=script)
    outcomes = run(engine, staged(*range(4)))
    assert failed(outcomes) == {0: ItemCode.MODEL_REFUSED}
    assert [shown(call) for call in engine.calls] == [["i0", "i1", "i2", "i3"], ["i0", "i1"], ["i0"], ["i1"], ["i2", "i3"]]
