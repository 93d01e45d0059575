"""Writing long values in steps, so that one guest's result does not stop the loop (contract X9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import wasmtime.component as wit

from ._capi import CELL
from .resources import Handles
from .values import Resources, Slices, Writer, primitive
from .writers import start_list, start_tuple, writer

SLICE = 256
"""List elements written between two chances for other tasks to run."""


def sliced_writer(kind: Any, resources: Resources) -> Slices | None:
    """A writer in steps, for types whose values may be too long to write in one go.

    A generator that yields between slices of lists of anything but numbers, which are written
    at memory speed; None for types without such lists at their top.
    """
    if isinstance(kind, wit.ListType) and primitive(kind.element) is None:
        return _sliced_list(writer(kind.element, resources))
    if isinstance(kind, wit.TupleType):
        steps = [sliced_writer(each, resources) for each in kind.elements]
        if any(steps):
            return _sliced_tuple(
                [
                    step or _at_once(writer(each, resources))
                    for step, each in zip(steps, kind.elements, strict=True)
                ]
            )
    return None


def is_long(value: Any) -> bool:
    """Whether a value is worth a sliced writer."""
    if isinstance(value, tuple):
        return any(is_long(item) for item in value)
    return isinstance(value, list) and len(value) > SLICE


def _at_once(write: Writer) -> Slices:
    def steps(cell: int, value: Any, handles: Handles) -> Iterator[None]:
        write(cell, value, handles)
        yield

    return steps


def _sliced_list(element: Writer) -> Slices:
    def steps(cell: int, value: Any, handles: Handles) -> Iterator[None]:
        at = start_list(cell, len(value))
        for start in range(0, len(value), SLICE):
            for item in value[start : start + SLICE]:
                element(at, item, handles)
                at += CELL
            yield

    return steps


def _sliced_tuple(elements: list[Slices]) -> Slices:
    def steps(cell: int, value: Any, handles: Handles) -> Iterator[None]:
        at = start_tuple(cell, len(elements))
        for element, item in zip(elements, value, strict=True):
            yield from element(at, item, handles)
            at += CELL

    return steps
