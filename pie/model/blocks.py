"""The blocks that the family's layers are made of, in float32 and bit-invariant.

A row's result must not depend on which rows are computed beside it (contract S4). Matrix products
are only invariant in the number of rows when it is a multiple of `ROW_ALIGNMENT`: libraries
use other kernels, with other summation orders, for the rest of the rows. So every product here
has its rows padded to such a multiple; all else works on each row, or element, alone.
"""

from __future__ import annotations

import math

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Activation
from .rope import Rope

ROW_ALIGNMENT = 8
"""Measured on AVX2: MKL differs at 1-3, 5-7 and 9-11 rows and agrees at all multiples of 8;
oneDNN's packed products agreed at every count tried."""

_GELU_SCALE = math.sqrt(2.0 / math.pi)


def aligned(rows: int) -> int:
    """`rows` rounded up to a count that products may have."""
    return -(-rows // ROW_ALIGNMENT) * ROW_ALIGNMENT


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension."""
    scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon)
    return x * scale * weight


@attrs.frozen(eq=False)
class Linear:
    """`x @ weight.T + bias` for [rows, inputs] with an aligned number of rows."""

    _weight: Tensor  # [outputs, inputs], in oneDNN's own layout where torch has oneDNN
    _bias: Tensor | None  # [outputs]
    _packed: bool

    @staticmethod
    def build(weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Pack `weight` once: torch's plain product takes twice as long at few rows."""
        if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's
            return Linear(weight, bias, packed=False)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROW_ALIGNMENT)
        return Linear(packed, bias, packed=True)

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packed:
            return F.linear(x, self._weight, self._bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def silu(x: Tensor) -> Tensor:
    """`x / (1 + exp(-x))`, in place, by steps that round alike wherever an element lies.

    torch's own rounds otherwise in the last elements of a thread's share than in the others
    (measured on AVX2, as is that its exp and tanh do not), so that a row's bits would depend on
    the number of threads and rows.
    """
    return x.div_(x.neg().exp_().add_(1.0))


def gelu_tanh(x: Tensor) -> Tensor:
    """`x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, in place, as `silu`."""
    inner = (x * x).mul_(x).mul_(0.044715)
    inner = inner.add_(x).mul_(_GELU_SCALE).tanh_().add_(1.0)
    return x.mul_(0.5).mul_(inner)


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """`cap * tanh(x / cap)`, in place; with a cap of 0, `x`."""
    return x.div_(cap).tanh_().mul_(cap) if cap else x


@attrs.frozen(eq=False)
class FeedForward:
    """`down(act(gate(x)) * up(x))`, gate and up in one product."""

    gate_up: Linear
    down: Linear
    activation: Activation

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        act = gelu_tanh if self.activation is Activation.GELU_TANH else silu
        return self.down(act(gate.contiguous()).mul_(up))


@attrs.frozen(eq=False)
class Rotary:
    """Rotary position embedding over the two halves of a head (RoFormer, GPT-NeoX layout)."""

    frequency: Tensor  # [head_dim / 2]
    factor: float

    @staticmethod
    def build(head_dim: int, rope: Rope) -> Rotary:
        return Rotary(torch.from_numpy(rope.frequencies(head_dim)), rope.factor)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of rows, [rows, 1, head_dim] each, once for all layers.

        Computed, not looked up: a guest may give any position (contract K3).
        """
        angle = positions.to(torch.float32)[:, None, None] * self.frequency
        cos, sin = angle.cos().mul_(self.factor), angle.sin().mul_(self.factor)
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate [rows, heads, head_dim]. No fused multiply-add: its use may vary with the shape."""
    cos, sin = factors
    return x * cos + torch.roll(x, x.shape[-1] // 2, -1) * sin
