"""Talking to the client, the store and topics; arguments; the outcome of `main`."""

from __future__ import annotations

from types import ModuleType

import inferlet
import pytest
from inferlet import Arguments, Failure, store
from inferlet.entry import Main, find_main, outcome

from pie.testing import run_native, simulated_engine
from tests.sdk.scripted import ScriptedHost, hosted


async def test_messages_and_blobs_go_both_ways_and_leave_no_handles() -> None:
    with hosted(ScriptedHost(inbox=["one", "two"])) as host:
        await inferlet.send("hello")
        await inferlet.send_blob(b"abc")
        assert await inferlet.receive() == "one"
        assert await inferlet.receive_blob() == b"two"
    assert host.sent == ["hello", b"abc"]
    assert host.live == []


async def test_a_subscription_gives_message_after_message() -> None:
    """Readiness without a message (another took it) means waiting again."""
    with hosted(ScriptedHost(inbox=["one", "", "two"])) as host:
        subscription = await inferlet.subscribe("topic")
        await inferlet.broadcast("topic", "hi")
        got = [await subscription.next(), await subscription.next()]
        await subscription.close()
    assert got == ["one", "two"]
    assert (host.sent, host.live) == ([("topic", "hi")], [])


async def test_closing_a_subscription_wakes_who_waits_for_it() -> None:
    async def main(args: list[str]) -> str:
        subscription = await inferlet.subscribe("topic")

        async def read() -> list[str]:
            return [message async for message in subscription]

        async def close() -> None:
            await inferlet.broadcast("topic", "one")
            await inferlet.sleep(1)
            await subscription.close()

        got, _ = await inferlet.gather(read(), close())
        return f"{got} {await subscription.next()}"

    async with simulated_engine() as engine:
        assert (await run_native(engine, main)).text == "['one'] None"


async def test_printing_goes_to_the_named_stream() -> None:
    with hosted(ScriptedHost()) as host:
        await inferlet.print("a", 1, end="!")
        await inferlet.print("b", error=True)
    assert host.written == [("stdout", b"a 1!"), ("stderr", b"b\n")]


async def test_the_store_remembers() -> None:
    with hosted(ScriptedHost()):
        await store.set("k", "v")
        assert (await store.get("k"), await store.keys()) == ("v", ["k"])
        await store.delete("k")
        assert (await store.get("k"), await store.exists("k")) == (None, False)


def test_wrong_options_are_failures_with_the_usage() -> None:
    parser = Arguments("name")
    parser.add_argument("--count", type=int)
    assert parser.parse_args(["--count", "3"]).count == 3
    for wrong in (["--other"], ["--count", "x"], ["--help"]):
        with pytest.raises(Failure, match="usage: name"):
            parser.parse_args(wrong)


async def _returns(args: list[str]) -> str | None:
    return " ".join(args)


async def _returns_nothing(args: list[str]) -> str | None:
    await inferlet.set_return("set before")
    return None


async def _fails(args: list[str]) -> str | None:
    raise Failure("exactly this")


async def _breaks(args: list[str]) -> str | None:
    raise KeyError("gone")


@pytest.mark.parametrize(
    ("main", "returned", "error"),
    [
        (_returns, "a b", None),
        (_returns_nothing, "set before", None),
        (_fails, None, "exactly this"),
        (_breaks, None, "KeyError: 'gone'"),
    ],
)
async def test_what_comes_of_main(main: Main, returned: str | None, error: str | None) -> None:
    with hosted(ScriptedHost(arguments=["a", "b"])) as host:
        assert await outcome(main) == error
    assert host.returned == returned
    assert bool(host.written) == (main is _breaks), "the traceback goes to stderr"


def test_a_module_without_an_async_main_is_refused() -> None:
    module = ModuleType("app")
    module.main = lambda args: ""  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"app\.py has no `async def main"):
        find_main(module)
