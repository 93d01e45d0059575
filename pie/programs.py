"""What an engine can launch: components of a wasm host, and coroutines of this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from .guest.host import Err, HostInterface
from .guest.instance import Instance
from .guest.interfaces import ALL
from .guest.wasm import Program, WasmHost
from .messages import Refused, Returned

if TYPE_CHECKING:
    from inferlet.entry import Main


@attrs.frozen(eq=False)
class WasmProgram:
    """A component, ready to be launched any number of times."""

    host: WasmHost
    program: Program
    called: str | None = None
    """What the one who launches it calls it, if not by the component's own name."""

    @property
    def name(self) -> str:
        return self.program.name if self.called is None else self.called

    async def run(self, instance: Instance, /) -> Returned | Refused:
        result = await self.host.run(self.program, instance)
        if isinstance(result, Err):
            return Refused(result.value)
        return Returned(instance.return_value)


@attrs.frozen(eq=False)
class NativeProgram:
    """An inferlet's `main` as a coroutine of the engine's process: breakpoints and all."""

    main: Main
    interfaces: Sequence[HostInterface] = ALL

    @property
    def name(self) -> str:
        return getattr(self.main, "__name__", "native")

    async def run(self, instance: Instance, /) -> Returned | Refused:
        from .guest.native import run_native  # here: components need no guest library

        result = await run_native(self.main, instance, self.interfaces)
        if isinstance(result, Err):
            return Refused(result.value)
        return Returned(instance.return_value)
