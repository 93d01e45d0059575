"""Native guests: the same host functions, handles and endings as components have."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import attrs
import inferlet
import pytest
import trio
from inferlet import host
from inferlet.entry import Main

from pie.activity import Activity
from pie.errors import GuestError, LimitExceeded
from pie.guest.host import Err, HostInterface, Ok, Wait
from pie.guest.instance import Instance
from pie.guest.native import run_native
from pie.signals import Signal

from .support import make_instance


@attrs.define(eq=False)
class Thing:
    """A host object that notes when it is closed."""

    name: str
    closed: list[str]

    def close(self) -> None:
        self.closed.append(self.name)


@attrs.define
class Toy:
    """Host interfaces of the contract with toy implementations."""

    signal: Signal = attrs.field(factory=Signal)
    closed: list[str] = attrs.field(factory=list)
    sent: list[Any] = attrs.field(factory=list)
    created: int = 0

    def interfaces(self) -> list[HostInterface]:
        common, message = (
            HostInterface("inferlet:core/common"),
            HostInterface("inferlet:core/message"),
        )
        runtime = HostInterface("inferlet:core/runtime")
        add = runtime.function
        add("get-arguments")(lambda instance: list(instance.arguments))
        add("set-return")(lambda instance, text: setattr(instance, "return_value", text))
        add("get-version")(self._broken)
        add("get-instance-id", suspends=True)(self._slow)
        common.function("[constructor]blob")(lambda instance, data: self._thing("blob"))
        common.function("[method]blob.size")(lambda instance, blob: 3)
        message.function("send-blob")(lambda instance, blob: self.sent.append(blob.name))
        message.function("send")(self._send)
        message.function("receive")(lambda instance: self._thing("receive"))
        message.function("[method]receive-result.pollable")(lambda instance, it: self.signal)
        message.function("[method]receive-result.get")(lambda instance, it: "message")
        message.function("subscribe", suspends=True)(
            lambda instance, topic: Wait([self.signal], lambda: self._thing(topic))
        )
        return [common, message, runtime]

    def _thing(self, name: str) -> Thing:
        self.created += 1
        return Thing(f"{name}{self.created}", self.closed)

    def _send(self, instance: Instance, message: str) -> None:
        if len(message) > 10:
            raise GuestError(f"send: {len(message)} bytes are more than 10")
        self.sent.append(message)

    def _broken(self, instance: Instance) -> str:
        raise ZeroDivisionError

    async def _slow(self, instance: Instance) -> str:
        await trio.sleep(1)
        return "id"


Body = Callable[[], Coroutine[Any, Any, str | None]]


def main_of(body: Body) -> Main:
    async def main(args: list[str]) -> str | None:
        return await body()

    return main


async def run(toy: Toy, body: Body, **limits: int) -> tuple[Ok[None] | Err[str], Instance]:
    instance = make_instance(activity=None, **limits)
    return await run_native(main_of(body), instance, toy.interfaces()), instance


async def test_a_text_is_the_return_value_and_a_failure_is_err() -> None:
    async def returns() -> str:
        return "text"

    async def fails() -> None:
        raise inferlet.Failure("why")

    result, instance = await run(Toy(), returns)
    assert (result, instance.return_value) == (Ok(), "text")
    assert (await run(Toy(), fails))[0] == Err("why")


async def test_handles_are_closed_at_once_when_dropped_and_else_newest_first() -> None:
    toy = Toy()

    async def body() -> None:
        blobs = [await host.new_blob(b"abc") for _ in range(4)]
        host.drop(blobs[1])
        assert toy.closed == ["blob2"]

    await run(toy, body)
    assert toy.closed == ["blob2", "blob4", "blob3", "blob1"]


async def test_an_owned_argument_belongs_to_the_host() -> None:
    toy = Toy()

    async def body() -> None:
        blob = await host.new_blob(b"abc")
        await host.send_blob(blob)
        await host.blob_size(blob)

    with pytest.raises(GuestError, match="self is not a live handle of a blob"):
        await run(toy, body)
    assert (toy.sent, toy.closed) == (["blob1"], [])


async def test_handles_are_checked_by_kind() -> None:
    async def body() -> None:
        await host.blob_size(await host.receive())

    with pytest.raises(GuestError, match=r"blob\.size: self is not a live handle of a blob"):
        await run(Toy(), body)


async def test_a_trap_ends_the_guest_even_if_it_is_caught() -> None:
    toy = Toy()

    async def body() -> None:
        for text in ("far too long a message", "later"):
            with suppress(Exception):
                await host.send(text)

    with pytest.raises(GuestError, match="22 bytes are more than 10"):
        await run(toy, body)
    assert toy.sent == []


async def test_a_bug_of_ours_stays_loud() -> None:
    async def body() -> None:
        await host.get_version()

    with pytest.raises(ZeroDivisionError):
        await run(Toy(), body)


async def test_a_missing_function_is_named() -> None:
    async def body() -> None:
        await host.store_get("k")

    with pytest.raises(GuestError, match="no host function inferlet:core/kvs#store-get"):
        await run(Toy(), body)


async def test_the_limit_on_handles_holds() -> None:
    async def body() -> None:
        for _ in range(5):
            await host.new_blob(b"")

    toy = Toy()
    with pytest.raises(LimitExceeded, match="at most 3 live resource handles"):
        await run(toy, body, max_handles=3)
    assert len(toy.closed) == 4


async def test_a_killed_guest_leaves_nothing() -> None:
    toy = Toy()

    async def body() -> None:
        await host.new_blob(b"")
        await inferlet.receive()

    with trio.move_on_after(1) as scope:
        await run(toy, body)
    assert scope.cancelled_caught
    assert toy.closed == ["receive2", "blob1"]


@pytest.mark.parametrize("place", ["library", "call", "coroutine", "elsewhere", "gather"])
async def test_a_guest_is_moving_only_while_it_can_go_on(place: str) -> None:
    """From the moment what it waits for is ready, and not while it waits for anything at all."""
    toy, activity, seen = Toy(), Activity(), list[int]()

    async def wait() -> None:
        if place == "library":
            await inferlet.receive()
        elif place == "call":
            await inferlet.subscribe("topic")
        elif place == "coroutine":
            await host.get_instance_id()
        elif place == "elsewhere":
            await trio.sleep(1)
        else:
            await inferlet.gather(inferlet.receive(), inferlet.sleep(2), host.get_instance_id())

    async def body() -> None:
        seen.append(activity.moving)
        await wait()
        seen.append(activity.moving)

    instance = make_instance(activity=activity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_native, main_of(body), instance, toy.interfaces())
        await trio.sleep(0.5)
        assert activity.moving == 0
        toy.signal.set()
        assert activity.moving == (1 if place in ("library", "call", "gather") else 0)
        await trio.sleep(0.1)
        assert activity.moving == 0
    assert seen == [1, 1]
    assert activity.moving == 0


async def test_gathered_strands_count_as_one_guest() -> None:
    """It is moving while any of them is."""
    toy, activity, seen = Toy(), Activity(), list[int]()

    async def body() -> None:
        async def strand(seconds: float) -> None:
            await inferlet.sleep(seconds)
            seen.append(activity.moving)

        await inferlet.gather(strand(1), strand(1), strand(2))

    await run_native(main_of(body), make_instance(activity=activity), toy.interfaces())
    assert seen == [1, 1, 1]


async def test_the_first_failure_of_a_gather_cancels_the_others() -> None:
    ended = []

    async def waits() -> None:
        try:
            await inferlet.receive()
        finally:
            ended.append("waits")

    async def fails() -> None:
        await inferlet.sleep(1)
        raise inferlet.Failure("first")

    async def body() -> None:
        await inferlet.gather(waits(), fails(), waits())

    result, _ = await run(Toy(), body)
    assert result == Err("first")
    assert ended == ["waits", "waits"]


async def test_a_guest_may_give_up_waiting() -> None:
    """Natively, where it has Trio: a cancelled host call is no trap."""

    async def body() -> str:
        with trio.move_on_after(1):
            await inferlet.receive()
        await inferlet.send("gave up")
        return "done"

    toy = Toy()
    result, instance = await run(toy, body)
    assert (result, instance.return_value, toy.sent) == (Ok(), "done", ["gave up"])
