"""The engines that one would take instead, as `make bench-peers` installs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.serving.contenders import Contender, Setting

from .llamacpp import LlamaCpp
from .openvino import OpenVino
from .places import why_missing
from .vllm import Vllm

PEERS: Mapping[str, Callable[[Setting], Contender]] = {
    "llama.cpp": LlamaCpp,
    "openvino": OpenVino,
    "vllm": Vllm,
}
"""By the names that they are installed by."""


def found(setting: Setting, names: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """Those of `names` that are installed, and why the others are not measured."""
    there: list[Contender] = []
    missing: dict[str, str] = {}
    for name in names:
        peer, reason = PEERS[name](setting), why_missing(name)
        if reason is None:
            there.append(peer)
        else:
            missing[peer.name] = reason
    return there, missing
