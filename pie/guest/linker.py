"""Linking by reflection: what a component imports is defined in the types it asks for.

Nothing is compared with our own WIT text. For every import of an interface the host knows, by
its name without a version, each function gets a trampoline made from the component's own type
of it (contract section 1). What the host lacks is defined too, so that a component that never
calls it runs: see `_lacking`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import wasmtime.component as wit
from wasmtime import WasmtimeError

from pie.errors import GuestError, ProgramError

from . import _capi, calls
from .host import Err, HostFunction, HostInterface
from .values import Resources

_DESTRUCTOR = _capi.destructor(calls.drop)
_REFUSALS = ("not-supported", "unsupported", "access-denied")
"""Error codes that say an operation is not offered, the best first."""


@attrs.frozen(eq=False)
class Linked:
    """A linker that has everything a component imports, and what must outlive it."""

    linker: Any
    resources: Resources
    callbacks: list[Any]


def link(engine: Any, component: Any, interfaces: Mapping[str, HostInterface]) -> Linked:
    """Define all imports of `component`; ProgramError if one cannot be met."""
    linked = Linked(wit.Linker(engine), Resources(), [])
    with linked.linker.root() as root:
        for name, item in component.type.imports(engine).items():
            if isinstance(item.ty, wit.ComponentInstanceType):
                interface = _find(name, interfaces)
                with root.add_instance(name) as instance:
                    _define(linked, instance, name, item.ty.exports(engine), interface)
    try:
        linked.linker.define_unknown_imports_as_traps(component)
    except WasmtimeError as error:
        raise ProgramError(f"its imports cannot be linked: {error}") from None
    return linked


def split_version(name: str) -> tuple[str, str]:
    """The parts of `package/interface@version`; the version may be empty."""
    base, _, version = name.partition("@")
    return base, version


def _find(name: str, interfaces: Mapping[str, HostInterface]) -> HostInterface | None:
    base, version = split_version(name)
    if base.startswith("wasi:") and not version.startswith("0.2."):
        return None
    return interfaces.get(base)


def _define(
    linked: Linked, instance: Any, name: str, items: Any, interface: HostInterface | None
) -> None:
    functions = []
    # All resource types of an interface come before the functions that mention them.
    for item_name, item in items.items():
        kind = item.ty
        if isinstance(kind, wit.ResourceType):
            _define_resource(linked, instance, item_name, kind)
        elif isinstance(kind, wit.FuncType):
            functions.append((item_name, kind))
    for item_name, kind in functions:
        callback, suspends = _callback(linked.resources, name, item_name, kind, interface)
        _capi.add_function(instance, item_name, callback, suspends=suspends)
        linked.callbacks.append(callback)


def _define_resource(linked: Linked, instance: Any, name: str, kind: Any) -> None:
    if linked.resources.find(kind) is None:
        ours = wit.ResourceType.host(linked.resources.add(kind))
        _capi.add_resource(instance, name, ours, _DESTRUCTOR)


def _callback(
    resources: Resources, name: str, item: str, kind: Any, interface: HostInterface | None
) -> tuple[Any, bool]:
    base, _ = split_version(name)
    full = f"{base}#{item}"
    if interface is None:
        return calls.refuse(_missing(base, full), GuestError), False
    function = interface.functions.get(item) or _lacking(item, kind)
    if function is None:
        return calls.refuse(f"{full} is not offered by this server", GuestError), False
    _check_parameters(full, function, kind)
    try:
        return calls.trampoline(full, function, kind, resources), function.suspends
    except TypeError as error:
        raise ProgramError(f"its import {full} cannot be linked: {error}") from None


def _missing(base: str, full: str) -> str:
    if base.startswith("inferlet:actor/"):
        return "inferlet:actor is not supported"
    return f"{full} is not offered by this server"


def _lacking(item: str, kind: Any) -> HostFunction | None:
    """For a function of a known interface that nobody implemented: an error value if it can
    say so in its type, or None, which means a trap."""
    result = kind.result
    if not (isinstance(result, wit.ResultType) and isinstance(result.err, wit.EnumType)):
        return None
    names = list(result.err.names)
    code = next((each for each in _REFUSALS if each in names), names[0])
    return HostFunction(item, lambda *_: Err(code), suspends=False)


def _check_parameters(full: str, function: HostFunction, kind: Any) -> None:
    """A component made for another version of an interface is refused, not run until it calls."""
    parameters = [f"{name}: {type_name(each)}" for name, each in kind.params]
    signature = inspect.signature(function.implementation)
    try:
        signature.bind(None, *parameters)
    except TypeError:
        host = list(signature.parameters)[1:]
        raise ProgramError(
            f"it imports {full} with {len(parameters)} parameters ({', '.join(parameters)}), "
            f"this server offers it with {len(host)} ({', '.join(host)})"
        ) from None


def type_name(kind: Any) -> str:
    """A WIT type as text, for messages."""
    return "".join(_words(kind))


def _words(kind: Any) -> Iterator[str]:
    yield type(kind).__name__.removesuffix("Type").lower()
    inner = getattr(kind, "element", None) or getattr(kind, "payload", None)
    if inner is not None:
        yield f"<{type_name(inner)}>"
