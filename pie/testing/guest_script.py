"""Native inferlets written against the host interfaces themselves, without the guest library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
from inferlet.native import HOST

from pie.errors import UsageError
from pie.guest.interfaces._signatures import SIGNATURES

_INTERFACES = {
    name.partition("]")[2] or name: (interface, name)
    for interface, functions in SIGNATURES.items()
    for name in functions
}
"""Short name -> interface and full name; no two functions share a short one."""


@attrs.frozen
class HostCalls:
    """The host functions, for the script of one instance."""

    arguments: tuple[str, ...] = ()

    async def call(self, function: str, /, *arguments: Any) -> Any:
        """Call a host function by its name in the WIT, for example `allocate-resources`,
        `queue.synchronize`, or `blob` for its constructor.

        Values are those of a native guest: handles are opaque, `list<u8>` is bytes, an enum is its
        name. What it raises, a trap, ends the instance. UsageError for an unknown name.
        """
        found = _INTERFACES.get(function)
        if found is None:
            raise UsageError(f"the host interfaces have no function {function!r}")
        return await HOST.get().call(*found, *arguments)

    async def answer(self, kind: str, handle: Any, /) -> Any:
        """What a result resource holds when it is ready: `answer("blob-result", result)`."""
        await self.ready(kind, handle)
        return await self.call(f"{kind}.get", handle)

    async def ready(self, kind: str, handle: Any, /) -> None:
        """Wait for the pollable of a handle."""
        pollable = await self.call(f"{kind}.pollable", handle)
        await HOST.get().poll([pollable])
        self.drop(pollable)

    def drop(self, handle: Any, /) -> None:
        """Release a handle now rather than at the end."""
        HOST.get().drop(handle)

    async def queue(self, model: str | None = None) -> Any:
        """A new command queue of a model, of the first by default."""
        name = model or (await self.call("get-all-models"))[0]
        return await self.call("model.create-queue", await self.call("get-model", name))

    async def submit(
        self,
        queue: Any,
        tokens: Sequence[int],
        pages: Sequence[int],
        *,
        start: int = 0,
        outputs: Sequence[int] | None = None,
        temperature: float = 0.0,
    ) -> Any:
        """Execute a pass that writes `tokens` to the slots from `start` on; its result.

        `outputs` are the inputs after which a token is sampled: the last, unless it says others.
        """
        end = start + len(tokens)
        size = await self._page_size(queue)
        work = await self.call("create-forward-pass", queue)
        await self.call("input-tokens", work, list(tokens), list(range(start, end)))
        await self.call("kv-cache", work, list(pages), (end - 1) % size + 1)
        wanted = [len(tokens) - 1] if outputs is None else list(outputs)
        if wanted:
            await self.call("output-tokens", work, wanted, temperature)
        return await self.call("forward-pass.execute", work)

    async def tokens(self, result: Any) -> list[int]:
        """What a pass has sampled, when it is done."""
        await self.ready("forward-pass-result", result)
        return list(await self.call("forward-pass-result.get-tokens", result))

    async def _page_size(self, queue: Any) -> int:
        service = await self.call("queue.get-service-id", queue)
        for name in await self.call("get-all-models"):
            model = await self.call("get-model", name)
            if await self.call("model.get-service-id", model) == service:
                return int(await self.call("model.get-kv-page-size", model))
        raise UsageError(f"no model has service id {service}")


@attrs.frozen
class GuestScript:
    """An inferlet's `main` that is given the host interfaces: for `run_native`, `NativeProgram`
    and `run_inferlet`.

        async def script(host: HostCalls) -> str:
            queue = await host.queue()
            pages = await host.call("allocate-resources", queue, 0, 1)
            result = await host.submit(queue, b"ab", pages)
            return bytes(await host.tokens(result)).decode()

        outcome = await run_native(engine, GuestScript(script))
    """

    script: Callable[[HostCalls], Awaitable[str | None]]

    @property
    def __name__(self) -> str:
        return getattr(self.script, "__name__", "script")

    async def __call__(self, arguments: list[str]) -> str | None:
        return await self.script(HostCalls(tuple(arguments)))
