"""What is said of a job when it is accepted is what its row, its question and its view say afterwards."""

from __future__ import annotations

from dataclasses import fields, replace

from pipeline.types import Detail, Question
from storage.job import accepting
from storage.job.questions import question_of
from storage.job.views import JobView, job_view
from storage.schema import jobs_table
from tests.rows import job_of, job_row, new_account

QUESTION = Question(
    prompt="p",
    json_mode=True,
    per_image=True,
    schema={"type": "object", "maximum": 10**30},
    merge="concat",
    images_per_call=7,
    cache=True,
    model="m-1",
    fallback_models=("m-2", "m-3"),
    detail=Detail.LOW,
)


def accepted(database, **given):
    account = new_account(database)
    new = replace(job_of(account), **given)
    with database.write() as connection:
        accepting.accept(connection, new, max_open=10, max_scratch=10**12)
    return new


def test_each_attribute_of_the_new_row_is_a_column_and_is_stored_there(database):
    new = accepted(
        database, metadata={"a": [1]}, fail_on_error=True, webhook_url="https://a.example/", request_id="r", warnings=["w"]
    )
    row = job_row(database, new.id)
    for attribute in fields(accepting.NewRow):
        assert getattr(row, attribute.name) == getattr(new, attribute.name), attribute.name


def test_the_question_comes_back_from_the_row_as_it_was(database):
    new = accepted(database, question=QUESTION)
    row = job_row(database, new.id)
    assert question_of(row.prompt, row.options) == QUESTION


def test_a_row_of_an_earlier_or_of_a_later_version_still_has_a_question():
    assert question_of("p", {"json_mode": True, "of_a_later_version": [1]}) == Question(prompt="p", json_mode=True)


def test_attributes_of_the_view_that_are_named_as_columns_have_their_values(database):
    new = accepted(database, metadata={"a": 1}, warnings=["w"])
    row = job_row(database, new.id)
    with database.read() as connection:
        view = job_view(connection, new.id, new.account)
    named = [attribute.name for attribute in fields(JobView) if attribute.name in jobs_table.c]
    assert {"id", "metadata", "warnings", "created_at"} <= set(named)
    assert {name: getattr(view, name) for name in named} == {name: getattr(row, name) for name in named}
