"""The settings file of a server (docs/configuration.md), and who may reach it."""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from pie.config import EngineConfig, Limits, Scheduling
from pie.errors import UsageError

from .config import Auth, Quotas, ServerConfig
from .protocol import MAX_TEXT
from .settings_keys import INSTANCES_PER_USER, TABLES, ModelSettings, State, StateSettings
from .settings_values import ValueRefused, show
from .toml import parse_toml
from .users import read_users

__all__ = [
    "ModelSettings",
    "Settings",
    "State",
    "check_exposure",
    "is_loopback",
    "read_settings",
]

log = logging.getLogger(__name__)

_MODEL = "model"

Values: TypeAlias = dict[type, dict[str, Any]]
"""By class and field: what the file says instead of the default."""


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that a settings file decides."""

    server: ServerConfig = attrs.field(factory=ServerConfig)
    engine: EngineConfig = attrs.field(
        factory=lambda: EngineConfig(
            max_instances_per_user=INSTANCES_PER_USER, limits=Limits(max_message_bytes=MAX_TEXT)
        )
    )
    """Without its `state_path` and `seed`: see `engine_with_state`."""
    state: State = State.DISK
    seed: int | None = None
    models: tuple[ModelSettings, ...] = ()

    def engine_with_state(self, folder: Path) -> EngineConfig:
        """With what outlives the engine in `folder`, if anything is to, and with a seed."""
        path = str(folder) if self.state is State.DISK else None
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return attrs.evolve(self.engine, state_path=path, seed=seed)


def read_settings(path: Path) -> Settings:
    """What the file says, and defaults for the rest; UsageError names table, key and value."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        return _settings(parse_toml(content), path.absolute().parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _settings(document: Mapping[str, Any], folder: Path) -> Settings:
    values: Values = {}
    for name, table in document.items():
        _check_table(name, table)
        if name != _MODEL:
            _read_table(name, table, folder, values)
    server = values.get(ServerConfig, {})
    _check_tls(server)
    limits = {"max_message_bytes": MAX_TEXT} | values.get(Limits, {})
    engine: dict[str, Any] = {"max_instances_per_user": INSTANCES_PER_USER} | values.get(
        EngineConfig, {}
    )
    return Settings(
        server=ServerConfig(**server, quotas=Quotas(**values.get(Quotas, {}))),
        engine=EngineConfig(
            **engine,
            limits=Limits(**limits),
            scheduling=Scheduling(**values.get(Scheduling, {})),
        ),
        **values.get(StateSettings, {}),
        models=_models(document.get(_MODEL, []), folder),
    )


def _check_table(name: str, table: object) -> None:
    if name not in TABLES:
        if isinstance(table, dict | list):
            raise UsageError(f"unknown table [{name}]{_nearest(name, TABLES)}")
        raise UsageError(f"{name} = {show(table)}: in no table{_home_of(name)}")
    if name == _MODEL:
        if not isinstance(table, list) or not all(isinstance(each, dict) for each in table):
            raise UsageError(f"[{name}]: models are written as [[{name}]], each its own")
    elif not isinstance(table, dict):
        raise UsageError(f"{name} = {show(table)}: a table is written as [{name}]")


def _read_table(name: str, table: Mapping[str, Any], folder: Path, values: Values) -> None:
    """Put what the table says to the other values."""
    keys = TABLES[name]
    place = f"[[{name}]]" if name == _MODEL else f"[{name}]"
    for written, value in table.items():
        key = keys.get(written)
        if key is None:
            hint = _home_of(written) or _nearest(written, keys)
            raise UsageError(f"{place} {written} = {show(value)}: no such key{hint}")
        try:
            checked = key.check(value)
        except ValueRefused:
            raise UsageError(
                f"{place} {written} = {show(value)}: it must be {key.expected}"
            ) from None
        if isinstance(checked, Path):
            checked = folder / checked.expanduser()
        values.setdefault(key.owner, {})[key.field] = checked


def _nearest(name: str, known: Iterable[str]) -> str:
    if close := difflib.get_close_matches(name, list(known), n=1):
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}"


def _home_of(key: str) -> str:
    """Where a key belongs that was found elsewhere."""
    places = [name for name, keys in TABLES.items() if key in keys]
    return f"; it belongs to {' or '.join(f'[{place}]' for place in places)}" if places else ""


def _check_tls(server: Mapping[str, Any]) -> None:
    """Both files or none, and files that can be read."""
    names = ("tls_certificate", "tls_key")
    for name, other in (names, reversed(names)):
        if (file := server.get(name)) is None:
            continue
        if other not in server:
            raise UsageError(f'[server] {name} = "{file}": {other} is missing')
        if not os.path.isfile(file) or not os.access(file, os.R_OK):
            raise UsageError(f'[server] {name} = "{file}": it must be a file that can be read')


def _models(tables: Iterable[Mapping[str, Any]], folder: Path) -> tuple[ModelSettings, ...]:
    models: list[ModelSettings] = []
    for number, table in enumerate(tables, 1):
        values: Values = {}
        _read_table(_MODEL, table, folder, values)
        if "name" not in (given := values.get(ModelSettings, {})):
            raise UsageError(f"[[{_MODEL}]] number {number}: name is missing")
        models.append(ModelSettings(**given | {"name": _model_name(given["name"], folder)}))
    served = [model.alias or model.name for model in models]
    if double := next((name for name in served if served.count(name) > 1), None):
        raise UsageError(
            f"[[{_MODEL}]] {show(double)} is there {served.count(double)} times: tell them apart "
            "with as"
        )
    return tuple(models)


def _model_name(name: str, folder: Path) -> str:
    """A path is one from the file's folder, like all others in it."""
    is_path = "/" in name or name.endswith(".gguf")
    if not is_path or name.startswith("hf:"):
        return name
    return str(folder / Path(name).expanduser())


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches that address; names other than localhost are not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(server: ServerConfig, users_path: Path) -> Auth:
    """How clients have to prove who they are, which is decided on purpose where others reach us.

    Raises UsageError for an address that is not loopback unless there are users who can log in,
    or `auth = "none"` was written down. What remains open is logged.
    """
    local = is_loopback(server.host)
    auth = server.auth or (Auth.NONE if local else Auth.KEYS)
    if auth is Auth.KEYS:
        _check_users(server, users_path)
    elif local:
        log.info("names of users are not proven: every program on this machine may use any name")
    else:
        log.warning(
            'auth = "none" at %s: whoever reaches port %d may run programs, under any user name',
            server.host,
            server.port,
        )
    return auth


def _check_users(server: ServerConfig, path: Path) -> None:
    first = "add one: pie auth add USER < KEY.pub"
    if not os.path.exists(path):
        raise UsageError(f"at {server.host} users have to log in, but {path} is not there; {first}")
    if not any(read_users(path).values()):
        raise UsageError(f"at {server.host} users have to log in, but {path} has none; {first}")
