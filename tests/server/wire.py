"""Messages as bytes, for tests."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from pie.server.protocol import ProtocolError, decode


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
