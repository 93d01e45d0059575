"""Bytes of the wire to frames and back: whatever a client sends has an answer, and fits it."""

from __future__ import annotations

from typing import TypeAlias, get_args

import msgspec
from msgspec.structs import replace

from pie.errors import UsageError
from pie.ids import EventCode

from .frames import (
    AttachResult,
    ClientFrame,
    InstanceEntry,
    InstanceEvent,
    LaunchResult,
    LiveInstances,
    Response,
    ServerEvent,
    ServerFrame,
)
from .heading import Heading, read_heading

MAX_MESSAGE = 1 << 20
"""Bytes: the published client's WebSocket takes nothing larger."""
MAX_TEXT = MAX_MESSAGE - 4096
"""Bytes of UTF-8 text that surely fit a frame, with everything around them."""
MAX_KEYS = 64
"""Of a message that is worth a second look."""

Refusal: TypeAlias = Response | LaunchResult | AttachResult

_KNOWN = tuple(str(frame.__struct_config__.tag) for frame in get_args(ClientFrame))
_NAMES = ", ".join(_KNOWN)
_OLD = {
    "authenticate": "clients log in with `identification`",
    "attach_remote_service": "models are part of the server",
    "wait_backend_change": "models are part of the server",
    "wait_instance_change": "`list_instances` tells about instances",
    "query_backend_stats": "ask `query` for `backend_stats`",
    "stop_backend_heartbeat": "models are part of the server",
}
"""Messages of older clients, and what is there instead."""

_frames: msgspec.msgpack.Decoder[ClientFrame] = msgspec.msgpack.Decoder(ClientFrame)
_maps = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.msgpack.Encoder()
_NIL = b"\xc0"
_NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ProtocolError(UsageError):
    """A message that means nothing to us; `reply` is what its sender waits for, if known."""

    def __init__(self, text: str, reply: ServerFrame | None) -> None:
        super().__init__(text)
        self.text = text
        self.reply = reply


def decode(data: bytes) -> ClientFrame:
    """The frame in a message; a key with nil counts as missing. Raises ProtocolError only."""
    try:
        return _frames.decode(data)
    except _NOT_DECODED as error:
        reason = error
    heading = read_heading(data)
    try:
        if heading.keys <= MAX_KEYS:
            return _decode_without_nils(data)
    except _NOT_DECODED:
        pass  # The first reason is about what the client has sent.
    raise _error(heading, reason)


def _decode_without_nils(data: bytes) -> ClientFrame:
    fields = _maps.decode(data)
    present = {name: raw for name, raw in fields.items() if bytes(raw) != _NIL}
    return _frames.decode(_encoder.encode(present))


def _error(heading: Heading, reason: Exception) -> ProtocolError:
    """Of a message that cannot be decoded for `reason`."""
    if heading.type is None:
        text = f"message without a readable `type` ({_cause(reason)}): known are {_NAMES}"
    elif heading.type in _OLD:
        text = f"{heading.type} is not supported by this server: {_OLD[heading.type]}"
    elif heading.type not in _KNOWN:
        text = f"unknown message type {_shorten(heading.type)}: known are {_NAMES}"
    else:
        text = f"{heading.type}: {_cause(reason)}"
    if heading.corr_id is None:
        return ProtocolError(text, None)
    return ProtocolError(text, _failure(heading.type, heading.corr_id, text))


def _cause(reason: Exception) -> str:
    if isinstance(reason, UnicodeDecodeError):
        return f"a text is not UTF-8: {reason.reason}"
    if isinstance(reason, RecursionError):
        return "values are nested too deeply"
    return str(reason)


def _shorten(text: str, limit: int = 64) -> str:
    return repr(text if len(text) <= limit else f"{text[:limit]}…")


def refusal(request: ClientFrame, text: str) -> Refusal | None:
    """The reply that fails `request`, of the kind that its client waits for; None if none is.

    No reply fails `list_instances` for the published client: it waits for a listing alone.
    """
    corr_id: int | None = getattr(request, "corr_id", None)
    if corr_id is None:
        return None
    return _failure(str(request.__struct_config__.tag), corr_id, text)


def _failure(kind: str | None, corr_id: int, text: str) -> Refusal:
    match kind:
        case "launch_instance" | "launch_instance_from_registry":
            return LaunchResult(corr_id=corr_id, successful=False, message=text)
        case "attach_instance":
            return AttachResult(corr_id=corr_id, successful=False, message=text)
        case _:
            return Response(corr_id=corr_id, successful=False, result=text)


def encode(frame: ServerFrame) -> bytes:
    """The message of a frame, below MAX_MESSAGE: what is too long for it is cut, and says so.

    What a guest sends is never cut: a message or a return value above MAX_TEXT is our own bug.
    """
    match frame:
        case Response():
            frame = replace(frame, result=_fit(frame.result))
        case InstanceEvent(event=EventCode.MESSAGE | EventCode.COMPLETED):
            frame = replace(frame, message=_whole(frame.message))
        case LaunchResult() | AttachResult() | InstanceEvent() | ServerEvent():
            frame = replace(frame, message=_fit(frame.message))
        case LiveInstances():
            frame = replace(frame, instances=_fit_entries(frame.instances))
    data = _encoder.encode(frame)
    assert len(data) < MAX_MESSAGE, f"a {frame.__struct_config__.tag} of {len(data)} bytes"
    return data


def _utf8(text: str) -> bytes:
    """What comes from other programs' errors may hold what UTF-8 has no bytes for."""
    return text.encode(errors="replace")


def _whole(text: str) -> str:
    data = _utf8(text)
    assert len(data) <= MAX_TEXT, f"a guest's text of {len(data)} bytes, above {MAX_TEXT}"
    return data.decode()


def _fit(text: str) -> str:
    data = _utf8(text)
    if len(data) <= MAX_TEXT:
        return data.decode()
    note = f"… (cut: {len(data)} bytes in all)"
    return data[: MAX_TEXT - len(note.encode())].decode(errors="ignore") + note


def _fit_entries(entries: list[InstanceEntry]) -> list[InstanceEntry]:
    """As many as fit: first without the longest arguments, then without the oldest instances.

    Takes time in proportion to all arguments, shown or not.
    """
    shown = dict(enumerate(entries))
    sizes = {index: _size(entry) for index, entry in shown.items()}
    excess = sum(sizes.values()) - MAX_TEXT
    if excess <= 0:
        return entries
    for index in sorted(shown, key=lambda index: _size(shown[index].arguments), reverse=True):
        if excess <= 0:
            break
        short = _without_arguments(shown[index])
        saved = sizes[index] - _size(short)
        if saved > 0:
            shown[index] = short
            sizes[index] -= saved
            excess -= saved
    for index in sorted(shown, key=lambda index: (-shown[index].elapsed_secs, index)):
        if excess <= 0:
            break
        excess -= sizes[index]
        del shown[index]
    return list(shown.values())


def _size(value: object) -> int:
    return len(_encoder.encode(value))


def _without_arguments(entry: InstanceEntry) -> InstanceEntry:
    return replace(entry, arguments=[f"({len(entry.arguments)} arguments left out)"])
