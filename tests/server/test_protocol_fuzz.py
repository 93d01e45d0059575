"""Whatever arrives is a frame or a refusal, and whatever leaves fits its message."""

from __future__ import annotations

from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie.server.frames import (
    CHUNK,
    AttachResult,
    ClientFrame,
    DownloadBlob,
    InstanceEntry,
    InstanceEvent,
    LaunchResult,
    LiveInstances,
    Response,
    ServerEvent,
    ServerFrame,
    StreamingOutput,
)
from pie.server.output import PIECE
from pie.server.protocol import MAX_MESSAGE, MAX_TEXT, ProtocolError, decode, encode

U32 = st.integers(0, (1 << 32) - 1)
KINDS: tuple[type[msgspec.Struct], ...] = get_args(ClientFrame)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda values: (
        st.lists(values, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.integers(-9, 300), values, max_size=5)
    ),
    max_leaves=6,
)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: U32,
    str: st.text(max_size=80),
    bytes: st.binary(max_size=80),
    bool: st.booleans(),
    list: st.lists(st.text(max_size=9), max_size=5),
}


def plain(field: msgspec.structs.FieldInfo) -> Any:
    """The Python type of a field of a client's frame, without its bounds and its None."""
    kind = msgspec.inspect.type_info(field.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType))
    names = {"IntType": int, "StrType": str, "BytesType": bytes, "BoolType": bool}
    return names.get(type(kind).__name__, list)


def fields_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Maps of that kind of message, complete."""
    values = {f.encode_name: OF_TYPE[plain(f)] for f in msgspec.structs.fields(kind)}
    return st.fixed_dictionaries({"type": st.just(kind.__struct_config__.tag), **values})


MESSAGES = st.sampled_from(KINDS).flatmap(fields_of)
HEADS = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(KINDS).map(lambda k: k.__struct_config__.tag)}
)


def corr_id_of(data: bytes) -> int | None:
    """What another reader finds, if it can read the message at all."""
    try:
        fields = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
    except Exception:  # noqa: BLE001  # whatever that reader minds
        return None
    corr_id = fields.get("corr_id") if isinstance(fields, dict) else None
    return corr_id if type(corr_id) is int and 0 <= corr_id < 1 << 32 else None


def outcome(data: bytes) -> ClientFrame | ProtocolError:
    try:
        return decode(data)
    except ProtocolError as error:
        return error


def check(data: bytes) -> None:
    """It is decoded, or refused with a reply if another reader finds whose it is."""
    result = outcome(data)
    if not isinstance(result, ProtocolError):
        assert isinstance(result, KINDS)
    elif corr_id_of(data) is not None:
        assert result.reply is not None
        assert result.text in msgpack.unpackb(encode(result.reply)).values()


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_any_value(value: object) -> None:
    check(msgpack.packb(value))


@given(HEADS, st.dictionaries(st.text(max_size=5) | st.just("corr_id"), VALUES, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_map(head: dict[str, object], rest: dict[str, object]) -> None:
    check(msgpack.packb({**rest, **head}))


@given(MESSAGES, st.integers(1, 4000), st.sampled_from([b"\x91", b"\x81\xa1k", b"\x81"]))
@settings(deadline=None)
def test_any_depth(message: dict[str, object], depth: int, opening: bytes) -> None:
    fields = msgpack.packb(message)
    check(bytes([fields[0] + 1]) + b"\xa1z" + opening * depth + b"\xc0" + fields[1:])


def damage(message: dict[str, object], data: st.DataObject) -> bytes:
    damaged = bytearray(msgpack.packb(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        length = data.draw(st.integers(0, 5))
        damaged[at : at + length] = data.draw(st.binary(max_size=5))
    return bytes(damaged)


@given(MESSAGES, st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage(message: dict[str, object], data: st.DataObject) -> None:
    check(damage(message, data))


@pytest.mark.long
@given(MESSAGES, st.data())
@settings(max_examples=20_000, deadline=None)
def test_any_damage_at_length(message: dict[str, object], data: st.DataObject) -> None:
    check(damage(message, data))


@given(MESSAGES)
@settings(deadline=None)
def test_any_end(message: dict[str, object]) -> None:
    whole = msgpack.packb(message)
    for end in range(len(whole)):
        check(whole[:end])


@given(MESSAGES.flatmap(lambda message: st.permutations(list(message.items()))))
@settings(deadline=None)
def test_a_complete_message_is_decoded_in_any_order_of_its_keys(
    items: list[tuple[str, object]],
) -> None:
    frame = decode(msgpack.packb(dict(items)))

    assert {"type": frame.__struct_config__.tag, **msgspec.structs.asdict(frame)} == dict(items)


@pytest.mark.parametrize(
    ("kind", "name", "required"),
    [(kind, f.encode_name, f.required) for kind in KINDS for f in msgspec.structs.fields(kind)],
)
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_any_field_missing_or_of_another_type(
    kind: type[msgspec.Struct], name: str, required: bool, data: st.DataObject
) -> None:
    message = data.draw(fields_of(kind))
    value = message.pop(name)
    without = msgpack.packb(message)
    check(without)
    if required:
        with pytest.raises(ProtocolError, match=name):
            decode(without)
    others = VALUES.filter(lambda other: other is not None and type(other) is not type(value))
    wrong = msgpack.packb({**message, name: data.draw(others)})
    check(wrong)
    with pytest.raises(ProtocolError, match=name):
        decode(wrong)


# What leaves

LONG = st.builds(lambda text, times: text * times, st.text(max_size=6), st.integers(0, MAX_MESSAGE))
SHORT = st.text(max_size=80)
ENTRIES = st.builds(
    InstanceEntry,
    id=SHORT,
    arguments=st.lists(
        SHORT | st.builds(lambda text, times: text * times, SHORT, st.integers(0, 100)),
        max_size=5,
    ),
    status=SHORT,
    username=SHORT,
    elapsed_secs=U32,
    kv_pages_used=U32,
)
FRAMES: st.SearchStrategy[ServerFrame] = st.one_of(
    st.builds(Response, corr_id=U32, successful=st.booleans(), result=LONG),
    st.builds(LaunchResult, corr_id=U32, successful=st.booleans(), message=LONG),
    st.builds(AttachResult, corr_id=U32, successful=st.booleans(), message=LONG),
    st.builds(InstanceEvent, instance_id=SHORT, event=st.integers(2, 5), message=LONG),
    st.builds(
        InstanceEvent,
        instance_id=SHORT,
        event=st.integers(0, 1),
        message=LONG.map(lambda text: text.encode()[:MAX_TEXT].decode(errors="ignore")),
    ),
    st.builds(ServerEvent, message=LONG),
    st.builds(
        StreamingOutput,
        instance_id=SHORT,
        output=LONG.map(lambda text: {"Stdout": text[:PIECE]}),
    ),
    st.builds(
        DownloadBlob,
        instance_id=SHORT,
        blob_hash=SHORT,
        chunk_index=U32,
        total_chunks=U32,
        chunk_data=st.integers(0, CHUNK).map(bytes),
    ),
    st.builds(
        lambda corr_id, entries, times: LiveInstances(corr_id=corr_id, instances=entries * times),
        U32,
        st.lists(ENTRIES, max_size=5),
        st.integers(0, 200),
    ),
)


@given(FRAMES)
@settings(max_examples=200, deadline=None)
def test_any_frame_fits_its_message(frame: ServerFrame) -> None:
    data = encode(frame)

    assert len(data) < MAX_MESSAGE
    assert msgpack.unpackb(data)["type"] == frame.__struct_config__.tag
