"""Reads a trace file back, as far as a replay needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from pie.errors import UsageError

from .format import READABLE
from .ranges import from_ranges


@attrs.frozen
class ModelFacts:
    """A model and how its scheduler was set up."""

    model: int
    name: str
    page_size: int
    pages: int
    embedding_slots: int
    adapter_slots: int
    context_length: int
    vocabulary: int
    scheduling: dict[str, Any]


@attrs.frozen
class InstanceFacts:
    """A launch; seconds since the trace began."""

    instance: int
    user: str
    program: str
    launched: float


@attrs.frozen(eq=False)
class Request:
    """What a guest asked of a model's scheduler, `op` in the order of all such requests.

    It came `delay` seconds after the last of: the answers to `waited`, the guest's request before.
    In the last `think` seconds of these the guest was running, or ready to.
    """

    op: int
    name: str
    """`pass`, `command`, `allocate`, `share`, `import`, `export`, `synchronize`, `free`, `release`,
    `end`"""
    model: int
    instance: int
    began: float
    ended: float
    waited: tuple[int, ...]
    delay: float
    think: float
    args: dict[str, Any]
    pages: tuple[int, ...] = ()
    """Of a pass, by the instance's pointers."""
    times: tuple[float, ...] = ()
    """When the passes of a decoding ended that ran; empty for everything else."""

    @property
    def is_decoding(self) -> bool:
        return "decoding" in self.args


@attrs.frozen
class BatchFacts:
    """A step that was run."""

    model: int
    began: float
    seconds: float
    rows: int
    passes: int
    kv_slots: int
    lost: bool


@attrs.define(eq=False)
class Record:
    """What a trace file says."""

    models: list[ModelFacts] = attrs.field(factory=list)
    instances: list[InstanceFacts] = attrs.field(factory=list)
    requests: list[Request] = attrs.field(factory=list)
    """By `op`."""
    batches: list[BatchFacts] = attrs.field(factory=list)
    complete: bool = False
    """Whether the file has its end: a run that was killed leaves one without."""


def read(path: Path) -> Record:
    """The record in a file. UsageError if it is not one, or of another version."""
    try:
        with path.open(encoding="utf-8") as file:
            return _Reader(path).read(enumerate(file, 1))
    except OSError as error:
        raise UsageError(f"cannot read the trace {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no trace of Pie: it is not text") from None


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._record = Record()
        self._start = 0.0
        self._pages: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self._model_of: dict[int, int] = {}
        self._followed: dict[int, list[dict[str, Any]]] = {}
        """By the `op` of a decoding: its passes after the first."""

    def read(self, lines: Iterator[tuple[int, str]]) -> Record:
        record = self._record
        if next(lines, (1, ""))[1].strip() != "[":
            raise UsageError(f"{self._path} is no trace of Pie: line 1 is not a bracket")
        self._read_header(next(lines, (2, ""))[1])
        for number, line in lines:
            text = line.strip().removesuffix(",")
            if text == "]":
                record.complete = True
                break
            if text:
                self._read_line(number, text, cut=not line.endswith("\n"))
        record.requests = sorted(map(self._whole, record.requests), key=lambda each: each.op)
        self._check()
        return record

    def _read_header(self, line: str) -> None:
        try:
            header = json.loads(line.strip().removesuffix(","))
            version = header["args"]["version"] if header["name"] == "pie_trace" else None
            self._start = float(header["args"]["start"])
        except (ValueError, KeyError, TypeError):
            version = None
        if version is None:
            raise UsageError(f"{self._path} is no trace of Pie: line 2 is not its header")
        if version not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise UsageError(
                f"{self._path} is a trace of version {version}, this Pie reads {known}"
            )

    def _read_line(self, number: int, text: str, *, cut: bool) -> None:
        try:
            event = json.loads(text)
        except ValueError:
            if cut:
                return  # the run was killed while this was written
            raise UsageError(f"{self._path}, line {number}: not JSON") from None
        try:
            self._take(event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{type(error).__name__} {error}"
            raise UsageError(f"{self._path}, line {number}: not an event: {text}") from None

    def _take(self, event: dict[str, Any]) -> None:
        args = event.get("args", {})
        if event["ph"] == "M" and event["name"] == "pie_model":
            self._record.models.append(ModelFacts(**args))
            self._model_of[event["pid"]] = args["model"]
        elif event["ph"] == "M" and event["name"] == "pie_instance":
            facts = args | {"launched": args["launched"] - self._start}
            self._record.instances.append(InstanceFacts(**facts))
        elif event.get("cat") == "batch" and event["ph"] == "X":
            self._take_batch(event, args)
        elif "op" in args:
            self._take_request(event, args)
        elif event.get("cat") == "follow":
            self._followed.setdefault(args["follows"], []).append(event)

    def _whole(self, request: Request) -> Request:
        """A decoding with the times of all its passes, and with the error of the last."""
        if not request.is_decoding:
            return request
        passes = [(request.ended, request.args)] + [
            ((event["ts"] + event["dur"]) * 1e-6, event["args"])
            for event in self._followed.get(request.op, ())
        ]
        times = tuple(time for time, args in passes if args["batch"] >= 0)
        ended, last = passes[-1]
        error = {"error": last["error"]} if "error" in last else {}
        return attrs.evolve(request, ended=ended, times=times, args=request.args | error)

    def _take_batch(self, event: dict[str, Any], args: dict[str, Any]) -> None:
        self._record.batches.append(
            BatchFacts(
                self._model_of[event["pid"]],
                event["ts"] * 1e-6,
                event["dur"] * 1e-6,
                args["rows"],
                args["passes"],
                args["kv_slots"],
                "lost" in args,
            )
        )

    def _take_request(self, event: dict[str, Any], args: dict[str, Any]) -> None:
        is_pass = event["cat"] == "pass"
        began = event["ts"] * 1e-6
        self._record.requests.append(
            Request(
                op=args["op"],
                name="pass" if is_pass else "command" if "command" in args else event["name"],
                model=args["model"],
                instance=args["instance"],
                began=began,
                ended=began + event.get("dur", 0.0) * 1e-6,
                waited=tuple(args["waited"]),
                delay=args["delay"],
                think=args["think"],
                args=args,
                pages=self._pages_of(args) if is_pass else (),
            )
        )

    def _pages_of(self, args: dict[str, Any]) -> tuple[int, ...]:
        key = args["model"], args["instance"], args["queue"]
        if "pointers" in args:
            self._pages[key] = tuple(from_ranges(args["pointers"]))
        return self._pages[key]

    def _check(self) -> None:
        """What it refers to is there; of a run that was killed, the last of it may be missing."""
        record = self._record
        models = {facts.model for facts in record.models}
        instances = {facts.instance for facts in record.instances}
        known = {request.op for request in record.requests}
        for request in record.requests:
            for what, number, among in (
                ("model", request.model, models),
                ("instance", request.instance, instances),
            ):
                if number not in among:
                    raise UsageError(
                        f"{self._path}: request {request.op} is of {what} {number}, "
                        "which is not in the trace"
                    )
            missing = set(request.waited) - known
            if missing and record.complete:
                raise UsageError(
                    f"{self._path}: request {request.op} waited for {min(missing)}, "
                    "which is not in the trace"
                )
        if not record.requests:
            raise UsageError(f"{self._path}: nothing was asked of a model in this trace")
