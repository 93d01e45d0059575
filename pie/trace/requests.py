"""What guests ask of a scheduler beside passes and commands, as a trace records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from pie.ids import ResourceKind
from pie.messages import (
    AllocatePointers,
    EndInstance,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ReleaseExport,
    SharePages,
    Synchronize,
)

from .ranges import ranges

Facts: TypeAlias = tuple[str, dict[str, Any]]
"""Name of a request, and its arguments."""


@attrs.frozen(eq=False)
class Asked:
    """A question and where it is shown."""

    op: int
    model: int
    name: str
    message: Any
    at: float
    tid: int
    args: dict[str, Any]


def _allocate(message: AllocatePointers) -> Facts:
    facts = {"instance": message.instance, "kind": int(message.kind), "count": message.count}
    return "allocate", facts | {"spare": message.spare}


def _share(message: SharePages) -> Facts:
    kind, given = int(ResourceKind.KV_PAGE), ranges(message.pointers)
    return "share", {"instance": message.instance, "kind": kind, "given": given}


def _import(message: ImportPointers) -> Facts:
    facts = {"instance": message.instance, "kind": int(message.kind), "name": message.name}
    return "import", facts | {"must_exist": message.must_exist}


def _export(message: ExportPointers) -> Facts:
    facts = {"instance": message.instance, "kind": int(message.kind), "name": message.name}
    return "export", facts | {"given": ranges(message.pointers), "must_be_new": message.must_be_new}


def _synchronize(message: Synchronize) -> Facts:
    return "synchronize", {"instance": message.instance, "queue": message.queue}


def _end(message: EndInstance) -> Facts:
    return "end", {"instance": message.instance, "drain": message.drain, "end": True}


def _free(message: FreePointers) -> Facts:
    kind, given = int(message.kind), ranges(message.pointers)
    return "free", {"instance": message.instance, "kind": kind, "given": given}


def _release(message: ReleaseExport) -> Facts:
    kind = int(message.kind)
    return "release", {"instance": message.instance, "kind": kind, "name": message.name}


ASKS: Mapping[type, Callable[[Any], Facts]] = {
    AllocatePointers: _allocate,
    SharePages: _share,
    ImportPointers: _import,
    ExportPointers: _export,
    Synchronize: _synchronize,
    EndInstance: _end,
}
"""Those that are answered."""
TELLS: Mapping[type, Callable[[Any], Facts]] = {FreePointers: _free, ReleaseExport: _release}
REQUESTS: Mapping[type, Callable[[Any], Facts]] = {**ASKS, **TELLS}


def answer_of(message: Any) -> dict[str, Any]:
    """What a question was answered: the pointers given, or why not."""
    if message.reply.error is not None:
        return {"error": str(message.reply.error)}
    if isinstance(message, AllocatePointers | SharePages | ImportPointers):
        given = message.reply.take()
        return {"found": False} if given is None else {"got": ranges(given)}
    if isinstance(message, ExportPointers):
        return {"found": message.reply.take()}
    return {}
