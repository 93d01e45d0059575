"""`wasi:cli`: an empty environment, no terminals, standard streams, and `exit`."""

from __future__ import annotations

from typing import Any

from pie.errors import GuestError
from pie.guest.host import Err, HostInterface, Ok
from pie.guest.instance import Instance

from .streams import InputStream, OutputStream

_environment = HostInterface("wasi:cli/environment")
_exit = HostInterface("wasi:cli/exit")
_stdin = HostInterface("wasi:cli/stdin")
_stdout = HostInterface("wasi:cli/stdout")
_stderr = HostInterface("wasi:cli/stderr")
INTERFACES = [_environment, _exit, _stdin, _stdout, _stderr]


class Exit(GuestError):
    """The guest ended itself by `wasi:cli/exit`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the program ended itself with exit code {code}")
        self.success = code == 0


@_environment.function("get-environment")
def get_environment(instance: Instance) -> list[tuple[str, str]]:
    return []


@_environment.function("get-arguments")
def get_arguments(instance: Instance) -> list[str]:
    """Empty: an inferlet has `inferlet:core/runtime.get-arguments`."""
    return []


@_environment.function("initial-cwd")
def initial_cwd(instance: Instance) -> None:
    return None


@_exit.function("exit")
def exit_(instance: Instance, status: Ok[Any] | Err[Any]) -> None:
    raise Exit(0 if isinstance(status, Ok) else 1)


@_exit.function("exit-with-code")
def exit_with_code(instance: Instance, code: int) -> None:
    raise Exit(code)


@_stdin.function("get-stdin")
def get_stdin(instance: Instance) -> InputStream:
    return InputStream()


@_stdout.function("get-stdout")
def get_stdout(instance: Instance) -> OutputStream:
    return OutputStream("stdout")


@_stderr.function("get-stderr")
def get_stderr(instance: Instance) -> OutputStream:
    return OutputStream("stderr")


def _no_terminal(instance: Instance) -> None:
    return None


INTERFACES.extend(HostInterface(f"wasi:cli/terminal-{_name}") for _name in ("input", "output"))
for _name in ("stdin", "stdout", "stderr"):
    _terminal = HostInterface(f"wasi:cli/terminal-{_name}")
    _terminal.function(f"get-terminal-{_name}")(_no_terminal)
    INTERFACES.append(_terminal)
