"""What an architecture of a GGUF file means: the differences of each from Llama, as data.

Facts that a file leaves out have llama.cpp's defaults. Norm weights are stored as they are used,
also those of Gemma, whose published checkpoints have them less one.
"""

from __future__ import annotations

import attrs

from ..config import Activation, NormPlace, QKNorm


@attrs.frozen(kw_only=True)
class GGUFFamily:
    """An architecture; the defaults are those of Llama."""

    interleaved: bool = False
    """Files pair neighbouring rotary dimensions instead of two halves."""
    norms: NormPlace = NormPlace.BEFORE
    qk_norm: QKNorm = QKNorm.NONE
    activation: Activation = Activation.SILU
    scaled_embedding: bool = False
    """Inputs are multiplied by the root of the hidden size."""
    window: int = 0
    """The sliding window if the file does not say."""
    period: int = 0
    """Every so many layers one, the last, has no sliding window; 0: all have it."""
    local_theta: float = 0.0
    """The base of the rotation in layers with a window if the file does not say; 0: the same."""
    local_unscaled: bool = False
    """The rotation is scaled in layers without a window only."""
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    odd_size: int = 0
    """With so many layers, queries are scaled by the hidden size per head (Gemma's 27B)."""
    rotating_period: int = 0
    """Every so many layers one, the last, is not turned; 0: all are turned."""

    def slides(self, layer: int, period: int) -> bool:
        return not period or layer % period < period - 1

    def rotates(self, layer: int) -> bool:
        return not self.rotating_period or bool((layer + 1) % self.rotating_period)

    def query_size(self, layers: int, hidden: int, heads: int, head_dim: int) -> float:
        """What queries are divided by the root of."""
        return hidden // heads if layers == self.odd_size else head_dim


_GEMMA2 = GGUFFamily(
    norms=NormPlace.BOTH,
    activation=Activation.GELU_TANH,
    scaled_embedding=True,
    window=4096,
    period=2,
    attention_cap=50.0,
    logit_cap=30.0,
    odd_size=46,
)

GGUF_FAMILIES = {
    "llama": GGUFFamily(interleaved=True),
    "qwen2": GGUFFamily(),
    "qwen3": GGUFFamily(qk_norm=QKNorm.HEAD),
    "gemma2": _GEMMA2,
    "gemma3": attrs.evolve(
        _GEMMA2,
        qk_norm=QKNorm.HEAD,
        window=0,
        period=6,
        local_theta=10000.0,
        local_unscaled=True,
        attention_cap=0.0,
        logit_cap=0.0,
        odd_size=62,
    ),
    "smollm3": GGUFFamily(interleaved=True, rotating_period=4),
    # A sliding window makes it OLMo 3.
    "olmo2": GGUFFamily(norms=NormPlace.AFTER, qk_norm=QKNorm.ROW, period=4, local_unscaled=True),
}
"""By `general.architecture`."""
