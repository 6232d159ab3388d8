"""API keys and accounts: what a key looks like, what is kept of it, and whom a name means."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from storage import schema
from storage.account import accounts, ledger
from storage.account.accounts import UnknownAccount
from tests.rows import everything

SECRET = b"secret"


@pytest.fixture
def account(database):
    with database.write() as connection:
        return accounts.create_account(connection, "shop")


def create(database, account, name="till"):
    with database.write() as connection:
        return accounts.create_key(connection, account=account, name=name, secret_key=SECRET)


def owner(database, key, secret_key=SECRET):
    with database.read() as connection:
        return accounts.account_of(connection, key, secret_key)


def revoke(database, name_or_id):
    with database.write() as connection:
        return accounts.revoke_key(connection, name_or_id)


def find(database, name_or_id):
    with database.read() as connection:
        return accounts.find_account(connection, name_or_id)


def test_a_key_is_a_prefix_an_id_and_a_secret_with_its_checksum():
    prefix, public, rest = accounts.new_key().split("_")
    assert prefix == "xim"
    assert (len(public), len(rest)) == (12, 32 + 6)
    assert set(public + rest) <= set(string.ascii_letters + string.digits)
    assert accounts.key_id(f"xim_{public}_{rest}") == public


def test_no_two_keys_are_alike():
    keys = [accounts.new_key() for _ in range(500)]
    assert len({accounts.key_id(key) for key in keys}) == 500


@given(place=st.integers(min_value=4, max_value=54), letter=st.sampled_from(accounts.BASE62))
def test_a_key_with_one_wrong_character_is_known_to_be_no_key(place, letter):
    key = accounts.new_key()
    mistyped = key[:place] + letter + key[place + 1 :]
    assert (accounts.key_id(mistyped) is None) == (mistyped != key)


@given(st.text(max_size=80))
def test_no_text_makes_the_check_of_a_key_fail(text):
    assert accounts.key_id(text) is None


@pytest.mark.parametrize("change", [str.lower, str.upper, lambda key: key + "\n", lambda key: " " + key, lambda key: key[:-1]])
def test_a_key_must_be_written_exactly(change):
    key = "xim_0000000000aA_" + "b" * 31 + "B" + accounts._checksum("0000000000aA_" + "b" * 31 + "B")
    assert accounts.key_id(key) == "0000000000aA"
    assert accounts.key_id(change(key)) is None


def test_a_key_speaks_for_its_account(database, account):
    assert owner(database, create(database, account)) == account


def test_only_a_keyed_hash_of_a_key_is_stored(database, account):
    key = create(database, account)
    stored = repr(everything(database))
    public, rest = key.split("_")[1:]
    assert public in stored
    assert rest not in stored
    assert rest[:32] not in stored
    with database.read() as connection:
        kept = connection.scalar(select(schema.api_keys_table.c.hash))
    assert kept == accounts.hash_key(key, SECRET) != accounts.hash_key(key, b"another")


def test_under_another_secret_key_no_key_opens_anything(database, account):
    assert owner(database, create(database, account), b"another") is None


def test_a_well_formed_key_that_was_never_made_opens_nothing(database, account):
    create(database, account)
    assert owner(database, accounts.new_key()) is None


def test_the_id_of_one_key_with_the_secret_of_another_opens_nothing(database, account):
    first, second = create(database, account), create(database, account)
    body = f"{first.split('_')[1]}_{second.split('_')[2][:32]}"
    assert owner(database, f"xim_{body}{accounts._checksum(body)}") is None


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_revoked_key_opens_nothing_and_the_account_s_others_stay(database, account, by):
    key, other = create(database, account, "till"), create(database, account, "office")
    assert revoke(database, accounts.key_id(key) if by == "id" else "till") == 1
    assert owner(database, key) is None
    assert owner(database, other) == account


def test_revoking_a_name_revokes_all_its_live_keys(database, account):
    keys = [create(database, account, "till") for _ in range(3)]
    assert revoke(database, accounts.key_id(keys[0])) == 1
    assert revoke(database, "till") == 2
    assert [owner(database, key) for key in keys] == [None] * 3


@pytest.mark.parametrize("name", ["nobody", "shop", ""])
def test_revoking_what_is_no_live_key_says_so(database, account, name):
    revoked = create(database, account, "till")
    revoke(database, "till")
    for unknown in (name, "till", revoked):
        with pytest.raises(UnknownAccount, match="no live key"):
            revoke(database, unknown)


def test_revoking_keeps_the_first_time(database, account):
    first = create(database, account, "till")
    revoke(database, "till")
    before = everything(database)["api_keys"]
    with pytest.raises(UnknownAccount):
        revoke(database, accounts.key_id(first))
    assert everything(database)["api_keys"] == before


def test_the_list_shows_each_key_with_its_account_s_credits_and_no_secret(database, account):
    with database.write() as connection:
        ledger.grant(connection, account, 50)
        ledger.reserve(connection, account=account, job="job_1", round_=1, amount=11)
    first, second = create(database, account, "till"), create(database, account, "office")
    revoke(database, "office")
    with database.read() as connection:
        listed = accounts.list_keys(connection)
    assert {row.id for row in listed} == {accounts.key_id(first), accounts.key_id(second)}
    assert {(row.account, row.available, row.held, row.charged) for row in listed} == {(account, 39, 11, 0)}
    assert {row.name: row.revoked_at is not None for row in listed} == {"till": False, "office": True}
    assert [row.created_at for row in listed] == sorted(row.created_at for row in listed)
    assert not any(key.split("_")[2][:32] in repr(listed) for key in (first, second))


def test_an_account_is_found_by_its_id_or_name_and_by_those_of_its_keys(database, account):
    key = create(database, account, "till")
    assert {find(database, name) for name in (account, "shop", accounts.key_id(key), "till")} == {account}


def test_keys_of_one_account_that_share_a_name_name_that_account(database, account):
    create(database, account, "till")
    create(database, account, "till")
    assert find(database, "till") == account


def test_a_name_that_several_accounts_have_is_refused_with_their_ids(database, account):
    with database.write() as connection:
        other = accounts.create_account(connection, "shop")
    with pytest.raises(UnknownAccount, match="names 2 accounts") as raised:
        find(database, "shop")
    assert account in str(raised.value)
    assert other in str(raised.value)


def test_a_name_of_one_account_and_of_another_s_key_is_refused(database, account):
    with database.write() as connection:
        other = accounts.create_account(connection, "office")
    create(database, other, "shop")
    with pytest.raises(UnknownAccount, match="names 2 accounts"):
        find(database, "shop")


def test_an_unknown_name_says_so(database, account):
    with pytest.raises(UnknownAccount, match="no account or key"):
        find(database, "nobody")


def test_an_unknown_account_has_no_credits(database, account):
    with database.read() as connection:
        assert accounts.available_credits(connection, "acc_none") == 0
