"""From what somebody calls a component, binary or text, to a binary one."""

from __future__ import annotations

from pathlib import Path

from wasmtime import WasmtimeError, wat2wasm

from pie.errors import ProgramError

_MAGIC = b"\0asm"
_COMPONENT = b"\x0d\x00\x01\x00"
_CORE_MODULE = b"\x01\x00\x00\x00"


def read_source(source: bytes | Path) -> bytes:
    """A binary component, from a file too; raises ProgramError if it is surely none."""
    if isinstance(source, Path):
        path = source
        try:
            source = path.read_bytes()
        except OSError as error:
            raise ProgramError(f"cannot read {path}: {error.strerror}") from None
    text = source.lstrip()
    if text.startswith((b"(", b";;")):
        try:
            source = bytes(wat2wasm(source))
        except WasmtimeError as error:
            raise ProgramError(f"not WebAssembly text: {' '.join(str(error).split())}") from None
    if not source.startswith(_MAGIC):
        raise ProgramError(f"not WebAssembly: it begins with {source[:4]!r}")
    if source[4:8] == _CORE_MODULE:
        raise ProgramError(
            "a core module, not a component: make one with `wasm-tools component new`"
        )
    if source[4:8] != _COMPONENT:
        raise ProgramError(f"an unknown kind of WebAssembly: version {source[4:8].hex(' ')}")
    return source
