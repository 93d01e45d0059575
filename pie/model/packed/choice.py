"""Whether a model can take the packed path here. Needs no torch."""

from __future__ import annotations

from importlib.util import find_spec

from pie.kernels.cpu.layout import GROUP

from ..config import LlamaConfig


def obstacle_of_machine() -> str | None:
    """Why no model can take it on this machine; None: models can."""
    if find_spec("llvmlite") is None:
        return "llvmlite is not installed (pip install 'pie-trio[cpu]')"
    from pie.kernels.cpu.target import detect

    return None if detect() else "there are no packed kernels for this processor and system"


def obstacle_of_model(config: LlamaConfig) -> str | None:
    """Why a model of this shape cannot; None: it can."""
    heads = config.heads * config.head_dim
    sizes = (("hidden", config.hidden), ("attention", heads), ("feed-forward", config.ffn))
    for what, size in sizes:
        if size % GROUP:
            return f"its {what} size {size} is no multiple of {GROUP}"
    return None
