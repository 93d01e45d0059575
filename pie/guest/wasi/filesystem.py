"""`wasi:filesystem`: a guest is given no folder, so it has no file to open."""

from __future__ import annotations

from pie.guest.host import HostInterface
from pie.guest.instance import Instance

_preopens = HostInterface("wasi:filesystem/preopens")
_types = HostInterface("wasi:filesystem/types")
INTERFACES = [_preopens, _types]


@_preopens.function("get-directories")
def get_directories(instance: Instance) -> list[tuple[object, str]]:
    return []


@_types.function("filesystem-error-code")
def filesystem_error_code(instance: Instance, error: object) -> None:
    return None
