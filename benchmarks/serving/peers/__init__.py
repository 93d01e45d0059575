"""The engines that one would take instead, as `make bench-peers` installs them."""

from __future__ import annotations

from benchmarks.serving.contenders import Contender, Setting

from .llamacpp import LlamaCpp
from .openvino import OpenVino
from .vllm import Vllm


def found(setting: Setting) -> tuple[list[Contender], dict[str, str]]:
    """The peers that are installed, and why the others are not measured."""
    there: list[Contender] = []
    missing: dict[str, str] = {}
    for peer in (LlamaCpp(setting), OpenVino(setting), Vllm(setting)):
        reason = peer.missing()
        if reason is None:
            there.append(peer)
        else:
            missing[peer.name] = reason
    return there, missing
