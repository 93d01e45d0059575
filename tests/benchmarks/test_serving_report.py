"""The serving benchmark's report: turns, ratios, goals, tables, and the client of an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from benchmarks.serving import plot, results
from benchmarks.serving.agents import compare
from benchmarks.serving.agents.jobs import Job
from benchmarks.serving.cases import CASES
from benchmarks.serving.cases import compare as compare_speed
from benchmarks.serving.contenders import BARE as LOOP
from benchmarks.serving.contenders import OURS, Unsupported
from benchmarks.serving.disturbance import neighbour
from benchmarks.serving.endpoint import Endpoint
from benchmarks.serving.parts import PARTS, named
from benchmarks.serving.plan import QUICK
from benchmarks.serving.processes import Process
from benchmarks.serving.report import markdown
from benchmarks.serving.serving import BARE
from benchmarks.serving.summary import judged, ratios
from benchmarks.serving.tax import GUESTS, tax
from benchmarks.serving.turns import Figures, take_turns

PLAN = attrs.evolve(QUICK, rounds=2, decode_tokens=4, batch_tokens=3)


class Held:
    """A process that notes who is let run."""

    running = True

    def __init__(self) -> None:
        self.log: list[str] = []

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.log.append("resume")

    def stop(self) -> None:
        self.log.append("stop")

    def fate(self) -> str:
        return "ended with 9: no memory"


class Scripted:
    """A contender whose figures are known, and whose batches fail with an error if it has one."""

    def __init__(self, name: str, speed: float, fails: Exception | None = None) -> None:
        self.name, self.speed, self.fails = name, speed, fails
        self.held = Held()

    @property
    def process(self) -> Process:
        return cast(Process, self.held)

    def start(self) -> dict[str, Any]:
        return {}

    def decode(self, prompt: Sequence[int], count: int) -> float:
        return self.speed

    def first_token(self, prompt: Sequence[int], *, seen: bool = False) -> float:
        if seen and self.name == LOOP:
            raise Unsupported("nothing is kept")
        return 1 / self.speed

    def batch(self, prompts: Sequence[Sequence[int]], count: int) -> float:
        if self.fails:
            raise self.fails
        return len(prompts) * count / self.speed

    def agents(self, job: str, specs: Any, tools: Any) -> tuple[float, list[Any]]:
        if self.name == LOOP:
            raise Unsupported("no guests, no agents")
        return 1 / self.speed, ["x"] * len(specs)


def quiet(_: str) -> None:
    pass


def test_contenders_take_turns_and_one_at_a_time() -> None:
    some = [Scripted(name, 1.0) for name in "abc"]
    asked: list[tuple[str, int]] = []

    def measure(contender: Any, number: int) -> float:
        assert [each.held.log[-1:] == ["resume"] for each in some].count(True) == 1
        asked.append((contender.name, number))
        return float(number)

    figures = take_turns(some, 2, measure, quiet)

    assert asked == [("a", 0), ("b", 0), ("c", 0), ("c", 1), ("b", 1), ("a", 1)]
    assert figures == Figures({name: [0.0, 1.0] for name in "abc"})
    assert all(each.held.log == ["resume", "pause"] * 2 for each in some)


def test_who_fails_is_named_with_the_reason_and_has_no_figure() -> None:
    """In the second round, so that the first is there and must not count."""
    mistaken, gone, slow = (Scripted(name, 1.0) for name in ("mistaken", "gone", "slow"))
    gone.held.running = False
    errors = {"mistaken": ValueError("no"), "gone": OSError("reset"), "slow": TimeoutError("late")}

    def measure(contender: Any, number: int) -> float:
        if number and contender.name in errors:
            raise errors[contender.name]
        return 1.0

    said: list[str] = []
    figures = take_turns([Scripted(OURS, 1.0), mistaken, gone, slow], 3, measure, said.append)

    assert figures.found == {OURS: [1.0] * 3}
    assert figures.failed == {
        "mistaken": "ValueError: no",
        "gone": "ended with 9: no memory",
        "slow": "TimeoutError: late",
    }
    assert len([line for line in said if "FAILED" in line]) == 3
    assert slow.held.log[-1] == "stop", "it would keep the next part waiting, too"
    assert "stop" not in mistaken.held.log


MACHINE = {
    "processor": "a",
    "cores": 2,
    "used_cores": [0],
    "memory_gib": 1,
    "features": ["avx2"],
    "python": "3",
}
LATENCY = {
    "guests": 64,
    "latency_ms_p50": 1.0,
    "latency_ms_p99": 11.0,
    "own_latency_ms_p99": 2.0,
}
STARTUP = {
    "first_seconds": 3.0,
    "warm_seconds": [1.0, 2.0, 1.5],
    "peak_rss": 200,
    "model_bytes": 100,
}


def report(model: Path) -> dict[str, Any]:
    """A run with known figures: one peer's batches fail, and one is not there."""
    broken = Scripted("broken", 9.0, RuntimeError("no memory"))
    some = [Scripted(OURS, 4.0), Scripted(LOOP, 5.0), Scripted("slow", 1.0), Scripted("p", 2.0)]
    everybody = [*some, broken]
    slower = {"period": 1.02, "step": 1.0}
    paces = {
        guest: [{"period": 1.0, "step": 1.0}] * 2 if guest == BARE else [slower] * 2
        for guest in GUESTS
    }
    parts = {name: compare_speed(everybody, CASES[name], PLAN, quiet) for name in CASES}
    parts["tree"] = compare.compare(some, Job("tree", "tree", [{}]), PLAN, quiet)
    parts["neighbour"] = neighbour(everybody, PLAN, quiet)
    parts["tax"] = Figures({"8": paces})
    parts["latency"], parts["startup"] = Figures(LATENCY), Figures(STARTUP)
    found = results.begun(MACHINE, model, quick=True)
    for name, figures in parts.items():
        figures.left_out["absent"] = "not installed: make bench-peers"
        results.add(found, name, figures, seconds=60, load=0.5)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    return file


def test_ratios_are_to_the_best_peer_and_to_the_bare_loop(model: Path) -> None:
    found = report(model)

    to_best = {"best": "p", "ratio": 2.0, "low": 2.0, "high": 2.0}
    assert ratios(found, "c8") == {**to_best, "of_bare": 0.8}
    assert ratios(found, "decode")["best"] == "broken"
    assert ratios(found, "seen")["ratio"] == 4 / 9, "of times, less is better"
    assert ratios(found, "tree") == to_best
    assert ratios(found, "fanout") == {}
    assert tax(found["parts"]["tax"]["found"]["8"], "python") == pytest.approx(0.02)


def test_goals_are_judged_on_what_was_measured(model: Path) -> None:
    verdicts = {goal["goal"]: goal["met"] for goal in judged(report(model))}

    assert verdicts["c8: times the best peer"] is True
    assert verdicts["seen: times the best peer"] is False
    assert verdicts["fanout: times the best peer"] is None
    assert verdicts["tax at 8 streams, python guests"] is True
    assert verdicts["tax at 32 streams, c guests"] is None
    assert verdicts["loop latency p99"] is False
    assert verdicts["throughput beside a neighbour"] is True
    assert verdicts["pie run, warm, to the first token"] is True


def test_the_report_is_json_tables_and_a_picture(model: Path) -> None:
    found = report(model)

    assert json.loads(json.dumps(found)) == found
    text = markdown(found)
    assert (
        "| 8 at once, tok/s | 4 (4 to 4) | 5 (5 to 5) | 1 (1 to 1) | 2 (2 to 2) | **FAILED** |"
        in text
    )
    assert "| broken | **FAILED** | **FAILED** | **FAILED** |" in text
    assert "* **FAILED**: broken (c8, c32, neighbour): RuntimeError: no memory" in text
    assert "**2.00** × p (2.00 to 2.00)" in text
    assert "Not measured: absent" in text
    assert "1020.00 (+2.0%; 20.00 of it between steps)" in text
    picture = plot.bars(found)
    assert picture.startswith("<svg")
    assert "2.00 Pie, inferlets" in picture
    assert "tree of thought" in picture


def test_a_run_adds_its_parts_to_those_of_earlier_ones(tmp_path: Path, model: Path) -> None:
    file, empty = tmp_path / "all.json", results.begun(MACHINE, model, quick=False)
    first = results.continued(file, empty)
    results.add(first, "c8", Figures({OURS: [1.0]}, {"p": "no"}), seconds=1, load=0)
    results.add(first, "c32", Figures({OURS: [2.0]}), seconds=1, load=0)
    results.write(file, first)

    second = results.continued(file, results.begun(MACHINE, model, quick=False))
    results.add(second, "c8", Figures({OURS: [3.0]}), seconds=1, load=0)

    assert second["parts"]["c32"]["found"] == {OURS: [2.0]}
    assert second["parts"]["c8"]["found"] == {OURS: [3.0]}
    assert second["parts"]["c8"]["failed"] == {}


def test_figures_of_other_conditions_do_not_mix(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "all.json"
    results.write(file, results.begun(MACHINE, model, quick=False))

    with pytest.raises(SystemExit, match="is of another quick: False, not True"):
        results.continued(file, results.begun(MACHINE, model, quick=True))
    with pytest.raises(SystemExit, match="is of another machine"):
        results.continued(file, results.begun(MACHINE | {"cores": 4}, model, quick=False))


def test_parts_are_chosen_by_name_or_by_group() -> None:
    assert named(None, PARTS, "part") == list(PARTS)
    assert named("tools32,speed", PARTS, "part") == [*CASES, "tools32"]
    with pytest.raises(SystemExit, match="no part is called 'sped'"):
        named("decode,sped", PARTS, "part")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that answers with the prompt, as often as tokens are asked for.

    To "where" it answers with the client's port, and to "leave" it ends the connection unsaid.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            count, prompt = body["max_tokens"], body["prompt"]
            if body.get("stream"):
                chunk = json.dumps({"choices": [{"text": "a"}]})
                self.answer(200, f"data: {chunk}\n\n" * count + "data: [DONE]\n\n")
                return
            text = str(self.client_address[1]) if prompt == "where" else str(prompt) * count
            usage = {"completion_tokens": min(count, 4)}
            asked = {"schema": body.get("json_schema"), "ignore_eos": body["ignore_eos"]}
            text = json.dumps(asked) if "json_schema" in body else text
            answer = {"choices": [{"text": text}], "usage": usage}
            self.answer(200 if count else 500, json.dumps(answer))
            self.close_connection = prompt == "leave"

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            self.answer(200, "")

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
    assert len(endpoint.arrivals([1, 2], 3)) == 3
    with endpoint.opened() as client:
        assert client.all(["x", "y"], 2) == ["xx", "yy"]
        asked = json.loads(client.complete_object("x", 9, {"type": "object"}))
        assert asked == {"schema": {"type": "object"}, "ignore_eos": False}
        with pytest.raises(RuntimeError, match="4 tokens came of 5"):
            client.complete("x", 5)
        with pytest.raises(RuntimeError, match="status 500"):
            client.complete("x", 0)


def test_connections_are_kept_during_a_job_and_renewed_when_the_server_ended_them(
    endpoint: Endpoint,
) -> None:
    with endpoint.opened() as client:
        assert client.complete("where", 1) == client.complete("where", 1)
        assert client.complete("leave", 1) == "leave"
        assert client.complete("x", 1) == "x"
