"""What clients hear of requests that are refused, and of rubbish."""

from __future__ import annotations

import msgpack
import pytest

from pie.server.frames import (
    AttachInstance,
    AttachResult,
    ClientFrame,
    LaunchFromRegistry,
    LaunchInstance,
    LaunchResult,
    LaunchServerInstance,
    ListInstances,
    Ping,
    Response,
    ServerFrame,
    SignalInstance,
    TerminateInstance,
)
from pie.server.heading import Heading, read_heading
from pie.server.protocol import refusal

from .published_client import VERSIONS, Receiver
from .wire import error_of, packed


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (Ping(corr_id=7), Response(corr_id=7, successful=False, result="no")),
        (ListInstances(corr_id=7), Response(corr_id=7, successful=False, result="no")),
        (
            LaunchInstance(corr_id=7, inferlet="a"),
            LaunchResult(corr_id=7, successful=False, message="no"),
        ),
        (
            LaunchFromRegistry(corr_id=7, inferlet="a"),
            LaunchResult(corr_id=7, successful=False, message="no"),
        ),
        (
            LaunchServerInstance(corr_id=7, port=1),
            Response(corr_id=7, successful=False, result="no"),
        ),
        (
            AttachInstance(corr_id=7, instance_id="i"),
            AttachResult(corr_id=7, successful=False, message="no"),
        ),
        (
            TerminateInstance(corr_id=7, instance_id="i"),
            Response(corr_id=7, successful=False, result="no"),
        ),
        (TerminateInstance(instance_id="i"), None),
        (SignalInstance(instance_id="i", message="m"), None),
    ],
)
def test_a_refusal_is_of_the_kind_that_the_client_waits_for(
    request_: ClientFrame, reply: ServerFrame | None
) -> None:
    assert refusal(request_, "no") == reply


@pytest.mark.parametrize("version", VERSIONS)
def test_the_published_client_hears_every_refusal_but_of_a_listing(version: str) -> None:
    with Receiver(version) as receiver:
        plain = receiver.waiting("", 1)
        launch = receiver.waiting("launch_", 2)
        attach = receiver.waiting("attach_", 3)
        for data in (
            packed(type="ping", corr_id=1, x=[[]]) + b"x",
            packed(type="launch_instance", corr_id=2),
            packed(type="attach_instance", corr_id=3, instance_id=5),
        ):
            reply = error_of(data).reply
            assert reply is not None
            receiver.take([reply])

        assert plain.result()[0] is False
        assert launch.result() == (
            False,
            "launch_instance: it needs a `program_hash` or an `inferlet`",
        )
        assert attach.result() == (
            False,
            "attach_instance: Expected `str`, got `int` - at `$.instance_id`",
        )


@pytest.mark.parametrize(
    "kind",
    [
        "authenticate",
        "attach_remote_service",
        "wait_backend_change",
        "wait_instance_change",
        "query_backend_stats",
        "stop_backend_heartbeat",
    ],
)
def test_messages_of_older_clients_are_refused_by_name(kind: str) -> None:
    reply = error_of(packed(type=kind, corr_id=9, token="t")).reply

    assert isinstance(reply, Response)
    assert reply.corr_id == 9
    assert reply.result.startswith(f"{kind} is not supported by this server")


@pytest.mark.parametrize(
    "fields", [{"corr_id": 9}, {"corr_id": 9, "type": 4}, {"corr_id": 9, "type": "pong" * 10_000}]
)
def test_an_unknown_type_is_told_the_known_ones(fields: dict[str, object]) -> None:
    reply = error_of(packed(**fields)).reply

    assert isinstance(reply, Response)
    assert reply.corr_id == 9
    assert "upload_program, launch_instance, launch_instance_from_registry" in reply.result
    assert len(reply.result) < 1000


DEEP = b"\x91" * 4000 + b"\xc0"
PING = b"\xa4type\xa4ping"
SEVEN = b"\xa7corr_id\x07"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x83\xa1x" + DEEP + PING + SEVEN, "nested too deeply"),
        (b"\x83" + PING + SEVEN + b"\xa1x\xdd\xff\xff\xff\xff\x01", "truncated"),
        (b"\xdf\xff\xff\xff\xff" + SEVEN + PING, "truncated"),
        (b"\x83" + SEVEN + PING + b"\xa1x\xc6\xff\xff\xff\xff", "truncated"),
        (b"\x83\x05\x06" + SEVEN + PING, "Expected `str`, got `int`"),
        (b"\x83\x90\x06" + SEVEN + PING, "Expected `str`, got `array`"),
        (b"\x83\xa1\xff\x06" + PING + SEVEN + b"\x00", "trailing"),
        (b"\x82" + SEVEN + b"\xa4type\xa1\xff", "UTF-8"),
        (b"\x83" + SEVEN + PING + b"\xa1x\xc1", "malformed"),
    ],
)
def test_rubbish_around_a_request_hides_neither_it_nor_what_is_wrong(
    data: bytes, text: str
) -> None:
    reply = error_of(data).reply

    assert isinstance(reply, Response)
    assert reply.corr_id == 7
    assert text in reply.result


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\xc1",
        b"GET / HTTP/1.1",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        packed(type="ping"),
        packed(type="ping", corr_id=-1),
        packed(type="ping", corr_id=1 << 32),
        packed(type="ping", corr_id=True),
        packed(type="ping", corr_id="1"),
        packed(type="ping", corr_id=None),
    ],
)
def test_a_message_of_no_readable_request_has_no_reply(data: bytes) -> None:
    assert error_of(data).reply is None


def test_more_arguments_than_a_program_can_want_are_refused() -> None:
    text = "launch_instance: Expected `array` of length <= 10000 - at `$.arguments`"

    assert error_of(
        packed(type="launch_instance", corr_id=7, inferlet="a", arguments=["x"] * 10_001)
    ).reply == LaunchResult(corr_id=7, successful=False, message=text)


def test_a_heading_is_found_behind_values_of_every_form() -> None:
    sizes = (0, 1, 2, 3, 4, 8, 15, 16, 31, 32, 255, 256, 4000, 70_000)
    values: list[object] = [sign * (1 << bits) for bits in range(63) for sign in (1, -1)]
    values += ["x" * size for size in sizes] + [bytes(size) for size in sizes]
    values += [msgpack.ExtType(5, bytes(size)) for size in sizes]
    values += [[0] * size for size in sizes[:-2]]
    values += [dict.fromkeys(range(size)) for size in sizes[:-2]]
    values += [None, True, False, 1.5, msgpack.Timestamp(1, 2)]
    wide = b"\xdd\0\0\0\x01\xdf\0\0\0\x01\xca\0\0\0\0\xdb\0\0\0\x01x"
    head = b"\xdf\0\0\0\x04\xa1x" + packed(x=values)[3:] + b"\xa1y" + wide

    assert read_heading(head + PING + SEVEN) == Heading("ping", 7, 4)


def test_the_search_for_a_heading_ends_before_it_holds_anybody_up() -> None:
    head = b"\x83\xa1x" + packed(x=[0] * 1_000_000)[3:]

    assert read_heading(head + PING + SEVEN) == Heading(None, None, 3)
