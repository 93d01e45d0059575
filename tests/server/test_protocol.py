"""Messages of clients to frames, frames to messages, and what is said about rubbish."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from pie.server.frames import (
    Identification,
    InstanceEvent,
    LaunchInstance,
    LaunchResult,
    Query,
    Response,
    SignalInstance,
    StreamingOutput,
    UploadProgram,
)
from pie.server.protocol import ProtocolError, decode, encode

from .published_client import INSTANCE

HASH = "ab" * 32


def packed(**fields: object) -> bytes:
    data: bytes = msgpack.packb(fields)
    return data


def unpacked(data: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = msgpack.unpackb(data)
    return fields


def error_of(data: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    return caught.value


def reply_of(data: bytes) -> object:
    return error_of(data).reply


def refused(text: str, corr_id: int = 7) -> Response:
    return Response(corr_id=corr_id, successful=False, result=text)


# What the published client sends


def test_a_minimal_session_is_understood() -> None:
    identification = bytes.fromhex("83a474797065ae") + b"identification"
    identification += b"\xa8username\xa1u\xa7corr_id\x01"

    assert decode(identification) == Identification(corr_id=1, username="u")
    assert decode(packed(type="query", subject="program_exists", record=HASH, corr_id=2)) == Query(
        corr_id=2, subject="program_exists", record=HASH
    )
    chunk = packed(
        type="upload_program",
        program_hash=HASH,
        corr_id=3,
        total_chunks=2,
        chunk_index=0,
        chunk_data=bytes(262_144),
    )
    assert decode(chunk) == UploadProgram(
        corr_id=3, program_hash=HASH, chunk_index=0, total_chunks=2, chunk_data=bytes(262_144)
    )
    assert decode(
        packed(
            type="launch_instance",
            corr_id=4,
            program_hash=HASH,
            arguments=["--prompt", "Hi"],
            detached=False,
        )
    ) == LaunchInstance(corr_id=4, program_hash=HASH, arguments=["--prompt", "Hi"])
    assert decode(
        packed(type="signal_instance", instance_id=INSTANCE, message="m")
    ) == SignalInstance(instance_id=INSTANCE, message="m")


def test_the_answers_of_a_minimal_session_are_the_maps_of_the_specification() -> None:
    text = "Authenticated (Engine disabled authentication)"

    assert encode(Response(corr_id=1, successful=True, result=text)) == (
        b"\x84\xa4type\xa8response\xa7corr_id\x01\xaasuccessful\xc3\xa6result\xd9\x2e"
        + text.encode()
    )
    assert unpacked(encode(LaunchResult(corr_id=4, successful=True, message=INSTANCE))) == {
        "type": "instance_launch_result",
        "corr_id": 4,
        "successful": True,
        "message": INSTANCE,
    }
    assert unpacked(encode(StreamingOutput(instance_id=INSTANCE, output={"Stdout": "x"}))) == {
        "type": "streaming_output",
        "instance_id": INSTANCE,
        "output": {"Stdout": "x"},
    }
    assert unpacked(encode(InstanceEvent(instance_id=INSTANCE, event=1, message="done"))) == {
        "type": "instance_event",
        "instance_id": INSTANCE,
        "event": 1,
        "message": "done",
    }
