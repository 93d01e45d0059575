"""`inferlet:core/runtime`: the instance's own facts, and the models there are (contract X1, X7)."""

from __future__ import annotations

import json
from collections.abc import Callable

from pie.errors import LimitExceeded
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.mailbox import tell
from pie.messages import InstanceDescription, ListInstances

from .handles import DebugQueryResult, Model, answered

runtime = HostInterface("inferlet:core/runtime")

VERSION = "0.2.0"
"""Of the interface, which is what published programs ask for."""


@runtime.function("get-version")
def get_version(instance: Instance) -> str:
    return VERSION


@runtime.function("get-instance-id")
def get_instance_id(instance: Instance) -> str:
    return instance.uuid


@runtime.function("get-arguments")
def get_arguments(instance: Instance) -> list[str]:
    return list(instance.arguments)


@runtime.function("set-return")
def set_return(instance: Instance, value: str) -> None:
    size, limit = len(value.encode()), instance.limits.max_message_bytes
    if size > limit:
        raise LimitExceeded(f"set-return: {size} bytes, the limit is {limit}")
    instance.return_value = value


@runtime.function("get-model")
def get_model(instance: Instance, name: str) -> Model | None:
    service = instance.models.get(name)
    return None if service is None else Model(service)


@runtime.function("get-all-models")
def get_all_models(instance: Instance) -> list[str]:
    return list(instance.models)


@runtime.function("get-all-models-with-traits")
def get_all_models_with_traits(instance: Instance, traits: list[str]) -> list[str]:
    wanted = set(traits)
    return [n for n, service in instance.models.items() if wanted <= set(service.info.traits)]


def _count(running: list[InstanceDescription]) -> str:
    return str(len(running))


def _listing(running: list[InstanceDescription]) -> str:
    return "\n".join(f"Instance ID: {r.uuid}, Program Hash: {r.program}" for r in running)


def _programs(running: list[InstanceDescription]) -> str:
    return "\n".join(sorted({r.program for r in running}))


def _stats(running: list[InstanceDescription]) -> str:
    return json.dumps({r.uuid: {"program": r.program, "seconds": r.seconds} for r in running})


QUERIES: dict[str, Callable[[list[InstanceDescription]], str]] = {
    "get_instance_count": _count,
    "get_server_instance_count": _count,
    "list_running_instances": _listing,
    "list_in_memory_programs": _programs,
    "stats": _stats,
}


@runtime.function("debug-query", suspends=True)
def debug_query(instance: Instance, query: str) -> DebugQueryResult | Wait:
    """About this user's own instances only.

    Waits for the answer, so that a guest cannot ask faster than the supervisor answers.
    """
    if query == "ping":
        return DebugQueryResult(answered("pong"), str)
    if query not in QUERIES:
        return DebugQueryResult(answered(f"Unknown query: {query}"), str)
    question = ListInstances(instance.user)
    tell(instance.supervisor, question)
    result = DebugQueryResult(question.reply, QUERIES[query])
    return Wait((question.reply,), lambda: result)
