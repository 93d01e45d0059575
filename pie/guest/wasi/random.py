"""`wasi:random`: bytes from the instance's seed, so that a run can be repeated."""

from __future__ import annotations

from pie.errors import LimitExceeded
from pie.guest.host import HostInterface
from pie.guest.instance import Instance

_MAX_BYTES = 1 << 20
"""Of one call: the bytes are made at once."""

_random = HostInterface("wasi:random/random")
_insecure = HostInterface("wasi:random/insecure")
_seed = HostInterface("wasi:random/insecure-seed")
INTERFACES = [_random, _insecure, _seed]


@_random.function("get-random-bytes")
@_insecure.function("get-insecure-random-bytes")
def get_random_bytes(instance: Instance, length: int) -> bytes:
    if length > _MAX_BYTES:
        raise LimitExceeded(f"wasi:random: {length} bytes asked at once, {_MAX_BYTES} are allowed")
    return instance.random.randbytes(length)


@_random.function("get-random-u64")
@_insecure.function("get-insecure-random-u64")
def get_random_u64(instance: Instance) -> int:
    return instance.random.getrandbits(64)


@_seed.function("insecure-seed")
def insecure_seed(instance: Instance) -> tuple[int, int]:
    return instance.random.getrandbits(64), instance.random.getrandbits(64)
