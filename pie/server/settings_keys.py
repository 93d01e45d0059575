"""The keys of the settings file, by table: each is a field of one of our configuration classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import NoneType
from typing import Any, get_args, get_type_hints

import attrs

from pie.actors.dispatch import POLICIES
from pie.config import EngineConfig, Limits, Scheduling
from pie.model import DType, KVType

from .config import Quotas, ServerConfig
from .protocol import MAX_TEXT
from .settings_values import (
    ABOVE_ONE,
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    Allowed,
    Bytes,
    Origins,
    ValueRefused,
    between,
    converter,
    one_of,
    words_of,
)


class State(StrEnum):
    """Where key-value pairs and exported KV pages are."""

    DISK = "disk"
    MEMORY = "memory"


@attrs.frozen(kw_only=True)
class ModelSettings:
    """One model to serve."""

    name: str
    """A known name (`pie model list`), hf:OWNER/NAME, or a GGUF file or a folder: what has a slash
    or ends with .gguf is a path."""
    dtype: DType = "auto"
    """float32 is the bit-exact reference, auto the fastest, bfloat16 fast with weights in it."""
    kv: KVType = "auto"
    """int8 keeps K and V in 8 bits instead of 16, for models that run packed."""
    pages: int | None = None
    """KV pages. None: for 65,536 tokens, or what fits a quarter of the memory if that is less."""
    alias: str | None = None
    """The name under which inferlets see it. None: its own."""


@attrs.frozen
class StateSettings:
    """The part of [engine] that is another for each start or place."""

    state: State = State.DISK
    """"disk": key-value pairs and exported KV pages outlive the server, in the data folder.
    "memory": both end with it."""
    seed: int | None = None
    """Instances derive their ids and, launched without one, their seeds from it. None: a new one at
    each start."""


@attrs.frozen(kw_only=True)
class Key:
    """A key of a table."""

    name: str
    owner: type
    field: str
    """Of the owner."""
    kind: Any
    """The type of the value, without None."""
    default: object
    required: bool
    allowed: Allowed | None
    """Beyond its type."""

    @property
    def expected(self) -> str:
        """What a value must be, for people."""
        words = words_of(self.kind)
        return words if self.allowed is None else f"{words}, {self.allowed.words}"

    def check(self, value: object) -> Any:
        """The value as its field has it; ValueRefused if it is not what is expected."""
        checked = converter.structure(value, self.kind)
        if self.allowed is not None and not self.allowed.holds(checked):
            raise ValueRefused
        return checked


INSTANCES_PER_USER = 1024

_SPECIAL: Mapping[str, Allowed] = {
    "port": between(0, 65535),
    "seed": NOT_NEGATIVE,
    "grace_seconds": NOT_NEGATIVE,
    "kept_seconds": NOT_NEGATIVE,
    "kept_instances": NOT_NEGATIVE,
    "detached_bytes": NOT_NEGATIVE,
    "host_pages": NOT_NEGATIVE,
    "prefill_slowdown": ABOVE_ONE,
    "max_message_bytes": between(1, MAX_TEXT),
    "dispatch": one_of(*POLICIES),
}
_DEFAULTS: Mapping[str, object] = {
    # What one frame of the wire carries, which is a little less than the engine's own default.
    "max_message_bytes": MAX_TEXT,
    # An engine of its own is for one user; a server's shall not be taken by one of many.
    "max_instances_per_user": INSTANCES_PER_USER,
}


def _keys(
    owner: type, names: Mapping[str, str] | None = None, without: Iterable[str] = ()
) -> dict[str, Key]:
    """Of all fields but some, or of those with `names` (field: key)."""
    hints = get_type_hints(owner)
    fields = {field.name: field for field in attrs.fields(owner)}
    chosen = names or {name: name for name in fields if name not in without}
    return {
        key: _key(key, owner, fields[name], _kind(name, hints[name]))
        for name, key in chosen.items()
    }


def _key(name: str, owner: type, field: attrs.Attribute[Any], kind: Any) -> Key:
    required = field.default is attrs.NOTHING
    return Key(
        name=name,
        owner=owner,
        field=field.name,
        kind=kind,
        default=None if required else _DEFAULTS.get(field.name, field.default),
        required=required,
        allowed=_SPECIAL.get(field.name, _usual(kind)),
    )


def _kind(name: str, hint: Any) -> Any:
    """What the file has for a field: its type, and by its name what numbers and texts mean."""
    some = tuple(kind for kind in get_args(hint) if kind is not NoneType)
    kind = some[0] if NoneType in get_args(hint) and len(some) == 1 else hint
    if kind is int and name.endswith("_bytes"):
        return Bytes
    return Origins if name == "allowed_origins" else kind


def _usual(kind: Any) -> Allowed | None:
    if kind in (int, Bytes):
        return AT_LEAST_ONE
    return POSITIVE if kind is float else None


TABLES: Mapping[str, Mapping[str, Key]] = {
    "server": _keys(ServerConfig, without=["quotas"]),
    "quotas": _keys(Quotas)
    | _keys(
        EngineConfig,
        names={
            "max_instances_per_user": "instances",
            "max_pages_per_user": "kv_pages",
            "max_store_bytes": "store_bytes",
        },
    ),
    "engine": _keys(EngineConfig, names={"max_instances": "max_instances"}) | _keys(StateSettings),
    "limits": _keys(Limits),
    "scheduling": _keys(Scheduling),
    "model": _keys(
        ModelSettings,
        names={"name": "name", "dtype": "dtype", "kv": "kv", "pages": "pages", "alias": "as"},
    ),
}
"""`[[model]]` may come several times, the others once."""
