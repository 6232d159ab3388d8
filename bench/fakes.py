"""How much the other benches' own fakes can do, asked by clients that do nothing else. No service is measured faster than that."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from bench.large_job import PER_CALL, others
from bench.report import print_report, spread
from bench.web import IMAGES, web
from testbed import numbered_picture

MODEL_CLIENTS, WEB_CLIENTS = 32, 128
ONE_BY_ONE = 100


def call(key: str, pictures: list[bytes]) -> Callable[[http.client.HTTPConnection], None]:
    """A model call with these pictures, ready to be sent again and again."""
    parts: list[dict[str, object]] = [{"text": "Which number?"}]
    for label, data in enumerate(pictures, start=1):
        parts += [
            {"text": f"Image {label}:"},
            {"inlineData": {"mimeType": "image/jpeg", "data": base64.b64encode(data).decode()}},
        ]
    body = json.dumps({"contents": [{"role": "user", "parts": parts}]}).encode()
    headers = {"x-goog-api-key": key, "Content-Type": "application/json"}

    def send(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1beta/models/gemini-3.5-flash-lite:generateContent", body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    return send


def a_second(address: str, send: Callable[[http.client.HTTPConnection, int], None], count: int, clients: int) -> float:
    """Requests a second, with so many clients at once."""

    def share(first: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        for number in range(first, count, clients):
            send(connection, number)
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(share, range(clients)))
    return count / (time.perf_counter() - began)


def fetch(connection: http.client.HTTPConnection, number: int) -> None:
    connection.request("GET", f"/{number}.jpg")
    connection.getresponse().read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    single: list[float] = []
    calls: list[float] = []
    fetches: list[float] = []
    with others(0.0) as place, web("photos") as port:
        model = urlsplit(place["model"]).netloc
        one = call(place["key"], [numbered_picture(1, format="JPEG", pad_to=100_000)])
        many = call(place["key"], [numbered_picture(n, format="JPEG", pad_to=30_000) for n in range(PER_CALL)])
        for _ in range(runs):
            connection = http.client.HTTPConnection(model, timeout=60)
            taken = []
            for _ in range(ONE_BY_ONE):
                began = time.perf_counter()
                one(connection)
                taken.append((time.perf_counter() - began) * 1000)
            connection.close()
            single.append(statistics.median(taken))
            calls.append(a_second(model, lambda connection, _: many(connection), IMAGES // PER_CALL, MODEL_CLIENTS))
            fetches.append(a_second(f"127.0.0.1:{port}", fetch, IMAGES, WEB_CLIENTS))
    print_report(
        f"What the fakes can do, {runs} runs",
        [
            ("the fake model: a call of one image of 100 KB, median", spread(single, "ms"), ""),
            (
                f"the fake model: {PER_CALL} images of 30 KB a call",
                spread([each * PER_CALL for each in calls], "images/s", 0),
                "",
            ),
            ("the web server with photos", spread(fetches, "images/s", 0), ""),
        ],
    )


if __name__ == "__main__":
    main()
