"""Calling an inferlet's `main`, in a component and natively alike."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TypeAlias

from . import host
from .errors import Failure

Main: TypeAlias = Callable[[list[str]], Awaitable[str | None]]


def find_main(module: ModuleType) -> Main:
    """`async def main(args)` of an inferlet's module; raises TypeError without one."""
    main: Main | None = getattr(module, "main", None)
    if main is None or not inspect.iscoroutinefunction(main):
        raise TypeError(f"{module.__name__}.py has no `async def main(args: list[str])`")
    return main


async def outcome(main: Main) -> str | None:
    """Run `main`; None if it went well, else the text of its error."""
    try:
        text = await main(list(await host.get_arguments()))
    except Failure as failure:
        return str(failure)
    except Exception as error:  # noqa: BLE001  # whatever the author did not catch, in full
        await host.write("stderr", traceback.format_exc())
        return f"{type(error).__name__}: {error}"
    if text is not None:
        await host.set_return(str(text))
    return None
