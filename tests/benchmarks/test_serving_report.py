"""The serving benchmark's report: turns, ratios, goals, tables, and the client of an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import pytest

from benchmarks.serving import cases, plot
from benchmarks.serving.contenders import BARE as LOOP
from benchmarks.serving.contenders import OURS, Unsupported
from benchmarks.serving.endpoint import Endpoint
from benchmarks.serving.plan import QUICK
from benchmarks.serving.report import markdown
from benchmarks.serving.serving import BARE
from benchmarks.serving.summary import agent_ratios, judged, speed_ratios
from benchmarks.serving.tax import GUESTS, tax

PLAN = attrs.evolve(QUICK, rounds=2, batches=(2,), decode_tokens=4, batch_tokens=3)


class Scripted:
    """A contender whose figures are known; one that has failed says so."""

    endpoint = None

    def __init__(self, name: str, speed: float, fails: str = "") -> None:
        self.name, self.speed, self.fails = name, speed, fails
        self.log: list[str] = []

    def start(self) -> dict[str, Any]:
        return {}

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.log.append("resume")

    def stop(self) -> None:
        pass

    def decode(self, prompt: Sequence[int], count: int) -> float:
        return self.speed

    def first_token(self, prompt: Sequence[int], *, seen: bool = False) -> float:
        if seen and self.name == LOOP:
            raise Unsupported("nothing is kept")
        return 1 / self.speed

    def batch(self, prompts: Sequence[Sequence[int]], count: int) -> float:
        if self.fails:
            raise RuntimeError(self.fails)
        return len(prompts) * count / self.speed


def test_contenders_take_turns_and_one_at_a_time() -> None:
    some = [Scripted(OURS, 4.0), Scripted(LOOP, 5.0), Scripted("other", 2.0, fails="no memory")]

    values, failed = cases.compare(some, cases.cases(PLAN), PLAN, lambda _: None)

    assert failed == {"other": "c2: no memory"}
    assert values["decode"] == {OURS: [4.0] * 2, LOOP: [5.0] * 2, "other": [2.0] * 2}
    assert values["seen"] == {OURS: [0.25] * 2}
    assert all(each.log == ["resume", "pause"] * (len(each.log) // 2) for each in some)


def report() -> dict[str, Any]:
    """A run as `measure` reports it, with known figures."""
    some = [Scripted(OURS, 4.0), Scripted(LOOP, 5.0), Scripted("slow", 1.0), Scripted("p", 2.0)]
    values, failed = cases.compare(some, cases.cases(PLAN), PLAN, lambda _: None)
    slower = {"period": 1.02, "step": 1.0}
    paces = {
        guest: [{"period": 1.0, "step": 1.0}] * 2 if guest == BARE else [slower] * 2
        for guest in GUESTS
    }
    found: dict[str, Any] = {
        "machine": {
            "processor": "a",
            "cores": 2,
            "used_cores": [0],
            "memory_gib": 1,
            "features": ["avx2"],
            "python": "3",
            "load_before": 0.0,
        },
        "missing": {"absent": "not installed: make bench-peers"},
        "failed": failed,
        "speed": values,
        "tax": {"8": paces},
        "agents": {
            "tree": {
                "title": "a tree",
                "failed": {},
                "seconds": {OURS: [1.0, 2.0], "p": [3.0, 3.0]},
            }
        },
        "neighbour": {OURS: {"alone": [10.0], "beside": [5.0]}},
        "latency": {
            "guests": 64,
            "latency_ms_p50": 1.0,
            "latency_ms_p99": 11.0,
            "own_latency_ms_p99": 2.0,
        },
        "startup": {
            "first_seconds": 3.0,
            "warm_seconds": [1.0, 2.0, 1.5],
            "peak_rss": 200,
            "model_bytes": 100,
        },
    }
    found["ratios"] = speed_ratios(found["speed"])
    found["agent_ratios"] = agent_ratios(found["agents"])
    found["goals"] = judged(found)
    return found


def test_ratios_are_to_the_best_peer_and_to_the_bare_loop() -> None:
    found = report()

    assert found["ratios"]["decode"] == {
        "best": "p",
        "ratio": 2.0,
        "low": 2.0,
        "high": 2.0,
        "of_bare": 0.8,
    }
    assert found["ratios"]["seen"]["ratio"] == 2.0, "of times, less is better"
    assert found["agent_ratios"]["tree"] == {"best": "p", "ratio": 2.0, "low": 1.5, "high": 3.0}
    assert tax(found["tax"]["8"], "python") == pytest.approx(0.02)


def test_goals_are_judged_on_what_was_measured() -> None:
    verdicts = {goal["goal"]: goal["met"] for goal in report()["goals"]}

    assert verdicts["decode: times the best peer"] is True
    assert verdicts["c32: times the best peer"] is None
    assert verdicts["tax at 8 streams, python guests"] is True
    assert verdicts["tax at 32 streams, c guests"] is None
    assert verdicts["loop latency p99"] is False
    assert verdicts["throughput beside a neighbour"] is True
    assert verdicts["pie run, warm, to the first token"] is True


def test_the_report_is_json_tables_and_a_picture() -> None:
    found = report()

    assert json.loads(json.dumps(found)) == found
    text = markdown(found)
    assert "**2.00** × p (2.00 to 2.00)" in text
    assert "Not measured: absent: not installed: make bench-peers" in text
    assert "1020.00 (+2.0%; 20.00 of it between steps)" in text
    picture = plot.bars("a run", found["speed"], {"decode": "decode"})
    assert picture.startswith("<svg")
    assert "2.00 Pie, inferlets" in picture


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that answers with the prompt, as often as tokens are asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            count = body["max_tokens"]
            self.send_response(200 if count else 500)
            self.end_headers()
            if body["stream"]:
                chunk = json.dumps({"choices": [{"text": "a"}]})
                self.wfile.write(f"data: {chunk}\n\n".encode() * count + b"data: [DONE]\n\n")
            else:
                usage = {"completion_tokens": min(count, 4)}
                text = str(body["prompt"]) * count
                answer = {"choices": [{"text": text}], "usage": usage}
                self.wfile.write(json.dumps(answer).encode())

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield Endpoint(server.server_address[1], "model")
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_client_of_an_endpoint(endpoint: Endpoint) -> None:
    assert endpoint.ready()
    assert endpoint.all(["x", "y"], 2) == ["xx", "yy"]
    assert len(endpoint.arrivals([1, 2], 3)) == 3
    with pytest.raises(RuntimeError, match="4 tokens came of 5"):
        endpoint.complete("x", 5)
    with pytest.raises(RuntimeError, match="status 500"):
        endpoint.complete("x", 0)
