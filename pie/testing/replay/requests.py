"""Requests of a trace as messages to a scheduler, and what their answers mean for later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pie.batch import DownloadAdapter
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.messages import (
    AllocatePointers,
    EndInstance,
    ExportPointers,
    ForwardPass,
    FreePointers,
    ImportPointers,
    Rank,
    ReleaseExport,
    RunCommand,
    Sample,
    SharePages,
    SubmitDecoding,
    SubmitPass,
    Synchronize,
)
from pie.trace.ranges import from_ranges
from pie.trace.reading import Request

Pointers: TypeAlias = dict[tuple[int, ResourceKind], dict[int, Pointer]]
"""What an instance's recorded pointers are now, by model and kind."""

PAGE, EMBEDDING, ADAPTER = ResourceKind


class Unplayable(Exception):
    """An instance cannot go on as in the record."""


def order_of_names(requests: Sequence[Request], users: Mapping[int, str]) -> dict[int, list[int]]:
    """What has to be asked before each export, import and release, to find what it did (`op`).

    Whoever imports comes after the export, whoever releases or exports anew after the imports,
    of the same name and user. Such an order between instances is in no answer that one of them
    gets.
    """
    order: dict[int, list[int]] = {}
    changed: dict[tuple[object, ...], int] = {}
    used: dict[tuple[object, ...], list[int]] = {}
    for request in requests:
        args = request.args
        if request.name not in ("export", "import", "release"):
            continue
        key = request.model, users[request.instance], args["kind"], args["name"]
        before = [changed[key]] if key in changed else []
        if request.name == "import":
            if "got" in args:
                order[request.op] = before
                used.setdefault(key, []).append(request.op)
        elif request.name == "release" or args.get("found"):
            order[request.op] = before + used.pop(key, [])
            changed[key] = request.op
    return order


def message_of(request: Request, pointers: Pointers) -> Any:
    """`request` as its instance's guest would send it now."""
    args, instance = request.args, InstanceId(request.instance)
    match request.name:
        case "pass":
            queue, priority = QueueId(args["queue"]), Priority(args["priority"])
            work = _work(request, pointers)
            if request.is_decoding:
                # As many passes as ran: which token ended it, or who, is not in the record.
                steps = max(1, len(request.times))
                return SubmitDecoding(instance, queue, priority, work, steps, frozenset())
            return SubmitPass(instance, queue, priority, work)
        case "command":
            return _command(request, pointers)
        case "allocate":
            return _allocation(instance, args)
        case "free":
            kind = ResourceKind(args["kind"])
            return FreePointers(instance, kind, _now(request, pointers, kind, _given(args)))
        case "share":
            return SharePages(instance, _now(request, pointers, PAGE, _given(args)))
        case "export":
            kind, new = ResourceKind(args["kind"]), args["must_be_new"]
            held = _now(request, pointers, kind, _given(args))
            return ExportPointers(instance, kind, held, args["name"], must_be_new=new)
        case "import":
            kind, must = ResourceKind(args["kind"]), args["must_exist"]
            return ImportPointers(instance, kind, args["name"], must_exist=must)
        case "release":
            return ReleaseExport(instance, ResourceKind(args["kind"]), args["name"])
        case "synchronize":
            return Synchronize(instance, QueueId(args["queue"]))
        case "end":
            return EndInstance(instance, drain=args["drain"])
    raise Unplayable(f"request {request.op} is a {request.name!r}, which is not known")


def _allocation(instance: InstanceId, args: dict[str, Any]) -> AllocatePointers:
    """What was spare then is asked for until it is there."""
    kind, count = ResourceKind(args["kind"]), args["count"]
    if args.get("spare"):
        count = len(from_ranges(args.get("got", ())))
    return AllocatePointers(instance, kind, count, spare=not count)


def _given(args: dict[str, Any]) -> list[int]:
    return from_ranges(args["given"])


def _now(
    request: Request, pointers: Pointers, kind: ResourceKind, recorded: Sequence[int]
) -> tuple[Pointer, ...]:
    held = pointers.get((request.model, kind), {})
    try:
        return tuple([held[pointer] for pointer in recorded])
    except KeyError as error:
        raise Unplayable(
            f"request {request.op} uses pointer {error} of kind {kind.name}, which instance "
            f"{request.instance} does not hold"
        ) from None


def _work(request: Request, pointers: Pointers) -> ForwardPass:
    args = request.args
    count, length = args["tokens"], args["kv"]
    reads = _now(request, pointers, EMBEDDING, args.get("reads", ()))
    stores = _now(request, pointers, EMBEDDING, args.get("stores", ()))
    adapter = args.get("adapter")
    last = count - 1
    return ForwardPass(
        inputs=tuple([-1 - pointer for pointer in reads] + [0] * (count - len(reads))),
        positions=tuple(range(length - count, length)),
        pages=_now(request, pointers, PAGE, request.pages),
        length=length,
        outputs=(Sample(last, 0.0),) * args["sampled"] + (Rank(last, 0.0, 1),) * args["ranked"],
        stored=tuple((last, pointer) for pointer in stores),
        adapter=None if adapter is None else _now(request, pointers, ADAPTER, [adapter])[0],
    )


def _command(request: Request, pointers: Pointers) -> RunCommand:
    args, kind = request.args, ResourceKind(request.args["kind"])
    return RunCommand(
        instance=InstanceId(request.instance),
        queue=QueueId(args["queue"]),
        priority=Priority(args["priority"]),
        kind=kind,
        pointers=_now(request, pointers, kind, args["slots"]),
        writes=args["writes"],
        command=DownloadAdapter(0) if kind is ADAPTER else None,
    )


def learn(request: Request, message: Any, pointers: Pointers) -> None:
    """Note what pointers an answer has given; Unplayable if it has fewer than in the record."""
    if "got" not in request.args:
        return
    error = message.reply.error
    given = None if error is not None else message.reply.take()
    recorded = from_ranges(request.args["got"])
    if given is None or len(given) != len(recorded):
        what = error or f"{request.name} {request.args.get('name', '')!r} gave other pages"
        raise Unplayable(f"request {request.op} of instance {request.instance}: {what}")
    held = pointers.setdefault((request.model, ResourceKind(request.args["kind"])), {})
    held.update(zip(recorded, given, strict=True))
