"""An account's owner makes and revokes its keys, and sees nobody else's."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from storage import schema
from storage.account import keys

KEYS = "/api/v1/keys"


@pytest.fixture
def house(make_harness):
    return make_harness(workers_count=0)


def made(house, name="shop", **options):
    return house.ask("POST", KEYS, json={"name": name}, **options)


def test_a_key_is_shown_once_and_works(house):
    answer = made(house, " <b>shop ")
    assert (answer.status_code, answer.json["name"], answer.headers["Cache-Control"]) == (201, "<b>shop", "no-store")
    key = answer.json["key"]
    assert house.get("/api/v1/jobs", key=key).status_code == 200
    listed = house.get(KEYS)
    assert key not in listed.text
    assert [(each["name"], each["current"]) for each in listed.json["keys"]] == [("test", True), ("<b>shop", False)]
    assert key.startswith(listed.json["keys"][1]["prefix"])


def test_a_revoked_key_is_refused_and_no_longer_shown(house):
    new = made(house).json
    assert house.ask("DELETE", f"{KEYS}/{new['id']}").status_code == 204
    assert house.get("/api/v1/jobs", key=new["key"]).status_code == 401
    assert len(house.get(KEYS).json["keys"]) == 1
    assert house.ask("DELETE", f"{KEYS}/{new['id']}").status_code == 404


def test_a_key_cannot_revoke_itself(house):
    [own] = house.get(KEYS).json["keys"]
    answer = house.ask("DELETE", f"{KEYS}/{own['id']}")
    assert (answer.status_code, answer.json["code"]) == (409, "key_in_use")
    assert house.get(KEYS).status_code == 200


def test_another_account_s_keys_are_neither_seen_nor_revoked(house):
    _, other = house.new_key()
    [theirs] = house.get(KEYS, key=other).json["keys"]
    assert theirs["id"] not in house.get(KEYS).text
    assert house.ask("DELETE", f"{KEYS}/{theirs['id']}").status_code == 404
    assert house.get(KEYS, key=other).status_code == 200


@pytest.mark.parametrize("name", [None, "", "  ", 5, "x" * 201, "a\x00b", "a\ud800"])
def test_a_key_needs_a_name_that_can_be_stored(house, name):
    answer = made(house, name)
    assert (answer.status_code, answer.json["code"]) in {(400, "invalid_name"), (400, "invalid_json")}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"name": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(house, body):
    answer = house.ask("POST", KEYS, data=body, environ_overrides={"CONTENT_LENGTH": str(len(body))})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_json")


def test_an_account_has_at_most_fifty_keys(house):
    with house.database.write() as connection:
        for _ in range(keys.MOST_KEYS - 1):
            keys.add_key(connection, account=house.account, name="more", secret_key=b"secret")
    assert made(house).json["code"] == "too_many_keys"


def test_the_last_use_of_a_key_is_written_once_an_hour(house):
    new = made(house).json
    used = schema.api_keys_table.c.last_used_at

    def last():
        with house.database.read() as connection:
            return connection.scalar(select(used).where(schema.api_keys_table.c.id == new["id"]))

    assert last() is None
    house.get(KEYS, key=new["key"])
    first = last()
    assert first is not None
    house.get(KEYS, key=new["key"])
    with house.database.write() as connection:
        keys.note_use(connection, new["id"])
    assert last() == first
    with house.database.write() as connection:
        connection.execute(update(schema.api_keys_table).values(last_used_at=first - keys.USE_MS - 1))
        keys.note_use(connection, new["id"])
    assert last() >= first
