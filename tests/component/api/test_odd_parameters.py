"""No text in any parameter of any address is a fault of the service, and nobody gets anything of another account."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.harness import Harness, running

METHODS = ("get", "post", "put", "patch", "delete")
#: What a parameter gets, as it stands in the address.
ODD = {
    "a NUL": "%00",
    "a NUL in an id": "job_%00abc",
    "half of a character": "%ED%A0%80",
    "half of a character as JSON": quote('{"after": "\\ud800"}'),
    "very long": "x" * 3000,
    "a large number": "9" * 400,
    "a line break": "a%0D%0Ab",
    "a cursor of a NUL": "AA",
    "a cursor of half of a character": "7aCA",
}


@pytest.fixture
def house(database_url, tmp_path):
    with running(tmp_path, workers_count=0, DATABASE_URL=database_url, RATE_LIMIT="1000000/minute") as started:
        yield started


def operations(house: Harness) -> list[tuple[str, str, list[str], list[str]]]:
    """Method, path, names of the path's parameters and of the query's, for every operation that is described."""
    described = json.loads(house.client.get("/openapi.json").data)
    found = []
    for path, item in described["paths"].items():
        for method in METHODS:
            if operation := item.get(method):
                named = [
                    described["components"]["parameters"][each["$ref"].rsplit("/", 1)[1]] if "$ref" in each else each
                    for each in [*item.get("parameters", []), *operation.get("parameters", [])]
                ]
                of = {place: [each["name"] for each in named if each["in"] == place] for place in ("path", "query")}
                found.append((method, path, of["path"], of["query"]))
    return found


def test_no_odd_text_in_a_path_or_a_query_is_a_fault_on_either_database(house):
    job = house.post({"inputMethod": "url", "images": house.urls(1), "prompt": "p"}, headers={"Prefer": "respond-async"}).json[
        "id"
    ]
    house.drain()
    asked = 0
    for method, path, of_path, of_query in operations(house):
        for text in ODD.values():
            addresses = [path.replace(f"{{{name}}}", text) for name in of_path]
            addresses += [f"{path.replace('{job}', job)}?{name}={text}" for name in of_query]
            for address in addresses:
                answer = house.app.test_client(use_cookies=False).open(
                    address, method=method.upper(), headers={"Authorization": f"Bearer {house.key}"}
                )
                assert answer.status_code < 500, (method, address, answer.data)
                asked += 1
    assert asked > 200


def test_no_address_shows_or_changes_anything_of_another_account(house):
    body = {"inputMethod": "url", "images": house.urls(1), "prompt": "p", "webhookUrl": "https://hooks.example/"}
    job = house.post(body, headers={"Prefer": "respond-async"}).json["id"]
    house.drain()
    delivery = house.get(f"/api/v1/jobs/{job}/deliveries").json["deliveries"][0]["id"]
    _, other = house.new_key()
    asked = 0
    for method, path, of_path, _ in operations(house):
        if "job" in of_path or "delivery" in of_path:
            address = path.replace("{job}", job).replace("{delivery}", delivery)
            answer = house.ask(method.upper(), address, key=other)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "not_found"), (method, path)
            asked += 1
    assert asked >= 8
    assert house.get(f"/api/v1/jobs/{job}").status_code == 200
