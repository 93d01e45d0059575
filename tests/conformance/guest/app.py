"""The conformance component: runs the case that its first argument names."""

from collections.abc import Callable
from typing import Any

from cases import CASES, Guest, Refusal, as_text  # type: ignore[import-not-found]  # beside it there
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import (
    evolve,
    ext,
    forward,
    image,
    inferlet_adapter_common,
    inferlet_core_common,
    kvs,
    message,
    monotonic_clock,
    poll,
    runtime,
    tokenize,
)

MODULES = (
    inferlet_core_common,
    forward,
    runtime,
    tokenize,
    kvs,
    message,
    inferlet_adapter_common,
    evolve,
    image,
    ext,
    poll,
    monotonic_clock,
)


def find(name: str) -> Callable[..., Any]:
    """The generated function, method or class behind a short name."""
    resource, _, last = name.rpartition(".")
    for module in MODULES:
        owner = getattr(module, camel(resource), None) if resource else module
        for attribute in (snake(last), camel(last)):
            found = getattr(owner, attribute, None)
            if callable(found):
                return found  # type: ignore[no-any-return]
    raise LookupError(name)


def snake(name: str) -> str:
    return name.replace("-", "_")


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


class Bindings:
    """The generated functions, which never suspend a coroutine."""

    async def call(self, name: str, /, *arguments: Any) -> Any:
        if name == "queue.set-priority":
            queue, priority = arguments
            arguments = (queue, inferlet_core_common.Priority[priority.upper()])
        return find(name)(*arguments)

    def drop(self, handle: Any, /) -> None:
        handle.__exit__(None, None, None)


class Run(exports.Run):  # type: ignore[misc]  # generated when it is built
    def run(self) -> None:
        arguments = list(runtime.get_arguments())
        body = CASES[arguments[0]].body(Guest(Bindings(), arguments[1:]))
        try:
            body.__await__().send(None)
        except StopIteration as end:
            runtime.set_return(as_text(end.value))
        except Refusal as refusal:
            raise Err(str(refusal)) from None
