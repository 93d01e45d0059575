"""Messages of clients to frames, and frames to messages."""

from __future__ import annotations

import pytest

from pie.ids import EventCode
from pie.server.frames import (
    AttachResult,
    Identification,
    InstanceEvent,
    LaunchFromRegistry,
    LaunchInstance,
    LaunchResult,
    Query,
    Response,
    ServerEvent,
    SignalInstance,
    StreamingOutput,
    TerminateInstance,
    UploadProgram,
)
from pie.server.protocol import MAX_MESSAGE, MAX_TEXT, decode, encode

from .published_client import INSTANCE
from .wire import packed, unpacked

HASH = "ab" * 32


# What clients send


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


def test_what_newer_clients_say_more_or_leave_out_is_no_matter() -> None:
    chunk = packed(
        type="upload_program",
        corr_id=1,
        program_hash=HASH,
        chunk_index=0,
        total_chunks=1,
        chunk_data=b"",
        manifest="[package]",
        colour="blue",
    )
    launch = packed(type="launch_instance", corr_id=2, inferlet="a@1", arguments=None)

    assert decode(chunk) == UploadProgram(
        corr_id=1,
        program_hash=HASH,
        chunk_index=0,
        total_chunks=1,
        chunk_data=b"",
        manifest="[package]",
    )
    assert decode(launch) == LaunchInstance(corr_id=2, inferlet="a@1")
    assert decode(
        packed(type="launch_instance_from_registry", corr_id=3, inferlet="a")
    ) == LaunchFromRegistry(corr_id=3, inferlet="a")
    assert decode(packed(type="terminate_instance", instance_id="i")) == TerminateInstance(
        instance_id="i"
    )


# What the server sends


def test_texts_that_are_too_long_are_cut_at_a_character_and_say_so() -> None:
    text = "é" * MAX_MESSAGE
    note = f"… (cut: {2 * MAX_MESSAGE} bytes in all)"
    for frame in (
        Response(corr_id=1, successful=False, result=text),
        LaunchResult(corr_id=1, successful=False, message=text),
        AttachResult(corr_id=1, successful=False, message=text),
        ServerEvent(message=text),
        InstanceEvent(instance_id=INSTANCE, event=EventCode.EXCEPTION, message=text),
    ):
        data = encode(frame)
        sent = unpacked(data)
        shown = sent.get("message") or sent["result"]

        assert MAX_TEXT - 2 <= len(shown.encode()) <= MAX_TEXT
        assert shown.endswith(note)
        assert set(shown.removesuffix(note)) == {"é"}


@pytest.mark.parametrize("code", [EventCode.MESSAGE, EventCode.COMPLETED])
def test_what_a_guest_sends_is_never_cut(code: EventCode) -> None:
    longest = InstanceEvent(instance_id=INSTANCE, event=code, message="x" * MAX_TEXT)
    longer = InstanceEvent(instance_id=INSTANCE, event=code, message="x" * (MAX_TEXT + 1))

    assert len(unpacked(encode(longest))["message"]) == MAX_TEXT
    with pytest.raises(AssertionError, match="above"):
        encode(longer)


def test_a_frame_above_the_bound_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="streaming_output of"):
        encode(StreamingOutput(instance_id=INSTANCE, output={"Stdout": "x" * MAX_MESSAGE}))


def test_texts_that_utf_8_has_no_bytes_for_are_sent_with_a_mark() -> None:
    """Errors name files, and names of files need not be text."""
    frame = InstanceEvent(instance_id=INSTANCE, event=EventCode.COMPLETED, message="a\udcffb")

    assert unpacked(encode(frame))["message"] == "a?b"
