"""What a trace file shows: well-formed events, and the life of guests, passes, batches, pages."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pie.config import EngineConfig, Scheduling

from .recording import Launch, a_guest, linear, many, record

Event = dict[str, Any]


def events_of(path: Path) -> list[Event]:
    loaded = json.loads(path.read_text())
    assert isinstance(loaded, list)
    return loaded


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Of forty guests on too few pages for all."""
    path = tmp_path_factory.mktemp("trace") / "t.json"
    record(
        path,
        many(3, 40),
        device=lambda: linear(pages=120),
        config=EngineConfig(scheduling=Scheduling(host_pages=400)),
    )
    return events_of(path)


def test_every_event_has_what_its_phase_needs(events: list[Event]) -> None:
    needs = {
        "M": {"name", "pid", "tid", "args"},
        "X": {"name", "cat", "pid", "tid", "ts", "dur"},
        "C": {"name", "pid", "ts", "args"},
        "i": {"name", "pid", "tid", "ts", "s"},
        "s": {"name", "cat", "pid", "tid", "ts", "id"},
        "f": {"name", "cat", "pid", "tid", "ts", "id", "bp"},
    }
    for event in events:
        assert needs[event["ph"]] <= event.keys(), event
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
    assert {event["ph"] for event in events} == needs.keys()


def test_every_process_and_thread_is_named_once(events: list[Event]) -> None:
    names = Counter((e["name"], e["pid"], e["tid"]) for e in events if e["ph"] == "M")
    assert set(names.values()) == {1}
    for event in events:
        if event["ph"] in "Xisf":
            assert ("process_name", event["pid"], 0) in names
            assert ("thread_name", event["pid"], event["tid"]) in names


def test_spans_of_one_track_do_not_overlap(events: list[Event]) -> None:
    """Viewers cannot draw those that do, so a queue has as many tracks as it needs."""
    spans = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            began = int(event["ts"] * 1000)  # as viewers may: rounded down to a nanosecond
            spans[event["pid"], event["tid"]].append((began, began + round(event["dur"] * 1000)))
    for track in spans.values():
        track.sort()
        for (_, ended), (began, _) in pairwise(track):
            assert began >= ended


def test_arrows_lead_from_each_pass_to_its_first_batch(events: list[Event]) -> None:
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    batches = {e["args"]["batch"]: e for e in events if e.get("cat") == "batch" and e["ph"] == "X"}
    passes = [e for e in events if e.get("cat") == "pass" and e["ph"] == "X"]

    assert starts.keys() == ends.keys() == {e["args"]["op"] for e in passes}
    for event in passes:
        op = event["args"]["op"]
        assert starts[op]["ts"] == event["ts"]
        assert starts[op]["tid"] == event["tid"]
        assert ends[op]["ts"] == batches[event["args"]["batch"]]["ts"] >= event["ts"]


def test_batches_have_all_rows_of_all_passes(events: list[Event]) -> None:
    passes = [e["args"] for e in events if e.get("cat") == "pass" and e["ph"] == "X"]
    batches = [e["args"] for e in events if e.get("cat") == "batch" and e["ph"] == "X"]

    follow = [e["args"] for e in events if e.get("cat") == "follow"]

    assert follow
    assert {f["follows"] for f in follow} <= {p["op"] for p in passes if "decoding" in p}
    assert sum(b["rows"] for b in batches) == sum(p["tokens"] for p in passes) + len(follow)
    assert sum(b["passes"] for b in batches) == sum(p["steps"] for p in passes) + len(follow)
    assert max(p["steps"] for p in passes) > 1


def test_pages_add_up_and_are_all_free_at_the_end(events: list[Event]) -> None:
    counts = [e["args"] for e in events if e["ph"] == "C"]

    assert {c["free"] + c["used"] for c in counts} == {120}
    assert max(c["host"] for c in counts) > 0
    assert counts[-1] == {"free": 120, "used": 0, "host": 0}


def test_moves_are_shown_with_their_pages(events: list[Event]) -> None:
    moved = Counter[str]()
    for event in events:
        if event["ph"] == "i" and event["name"].startswith("moved"):
            moved[event["name"]] += event["args"]["pages"]

    assert moved["moved out"] >= moved["moved back"] > 0


def test_a_guest_is_seen_waiting_for_what_it_waits_for(tmp_path: Path) -> None:
    record(tmp_path / "t.json", [Launch(a_guest(5, 3, pause=2.0))])
    events = events_of(tmp_path / "t.json")
    waits = Counter[str]()
    for event in events:
        if event.get("cat") == "guest":
            waits[event["name"]] += event["dur"]

    step = 10_000
    assert waits["waiting: outside"] == pytest.approx(2e6)
    assert waits["waiting: pass"] == pytest.approx(3 * step + (5 + 1 + 1) * 10)
    assert waits["running"] == 0  # the host takes no virtual time
    ended = [e for e in events if e["ph"] == "i" and e["name"] == "ended"]
    assert [e["args"]["event"] for e in ended] == ["COMPLETED"]


def test_a_pass_tells_when_its_inputs_were_ready(tmp_path: Path) -> None:
    """Decoding waits for the pass before; the pause in the middle is nobody's running time."""
    passes = [
        request
        for request in record(tmp_path / "t.json", [Launch(a_guest(5, 4, pause=2.0))]).requests
        if request.name == "pass"
    ]

    assert [p.args["tokens"] for p in passes] == [5, 1, 1, 1]
    assert [p.args["kv"] for p in passes] == [5, 6, 7, 8]
    assert [p.waited[-1:] for p in passes[1:]] == [(p.op,) for p in passes[:-1]]
    assert [round(p.delay, 6) for p in passes] == [0, 0, 0, 2]
    assert [round(p.think, 6) for p in passes] == [0, 0, 0, 0]
