"""What a client says of a program it uploads: TOML with `[package] name` and `version`."""

from __future__ import annotations

from pie.errors import UsageError

from .program_names import ProgramName, parse_name
from .toml import parse_toml

MAX_CHARACTERS = 16 << 10


def read_manifest(text: str) -> ProgramName:
    """The name with its version; other entries mean nothing to us. UsageError if it has none."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"manifest of {len(text)} characters: at most {MAX_CHARACTERS}")
    try:
        package = parse_toml(text.encode()).get("package")
    except UsageError as error:
        raise UsageError(f"manifest: {' '.join(str(error).split())}") from None
    if not isinstance(package, dict):
        raise UsageError("manifest: no table [package]")
    name, version = (_text(package, key) for key in ("name", "version"))
    if "@" in name or "#" in name:
        raise UsageError(f"manifest: package.name is [ns/]name alone, not {name[:80]!r}")
    read = parse_name(f"{name}@{version}")
    if read.version is None or read.hash is not None:
        raise UsageError(f"manifest: package.version is dotted numbers, not {version[:80]!r}")
    return read


def _text(package: dict[str, object], key: str) -> str:
    value = package.get(key)
    if not isinstance(value, str):
        raise UsageError(f"manifest: package.{key} is missing or no text")
    return value
