"""Makes jobs over the API, for the tests of its jobs."""

from __future__ import annotations

JOBS = "/api/v1/jobs"


def body(house, count=3, **fields):
    return {"inputMethod": "url", "images": house.urls(count), "prompt": "p", "granularity": "perImage", **fields}


def make(house, count=3, **fields):
    answer = house.ask("POST", JOBS, json=body(house, count, **fields))
    assert answer.status_code == 202, answer.json
    return answer.json["id"]


def done(house, count=3, **fields):
    job = make(house, count, **fields)
    house.drain()
    return job


def walk(house, path, name, **query):
    """Every entry, page by page; how many pages."""
    entries, cursor, pages = [], "", 0
    while cursor is not None:
        page = house.ask("GET", path, query_string={**query, "cursor": cursor}).json
        entries, cursor, pages = entries + page[name], page["nextCursor"], pages + 1
    return entries, pages
