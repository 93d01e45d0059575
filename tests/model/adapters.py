"""LoRA adapters for tests: random ones, their files, and batches that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from safetensors.numpy import save

from pie.batch import Batch, ints
from tests.model.support import Pass, make_batch
from tests.model.tiny import Array, Tiny


def random_lora(
    tiny: Tiny,
    seed: int,
    ranks: Mapping[str, int] | None = None,
    layers: Sequence[int] | None = None,
) -> dict[str, Array]:
    """Random factors under PEFT's names; `ranks` by projection (q, k, v)."""
    random = np.random.default_rng(seed)
    rows = {"q": tiny.heads * tiny.head_dim, "k": tiny.kv_heads * tiny.head_dim}
    rows["v"] = rows["k"]
    tensors: dict[str, Array] = {}
    for layer in range(tiny.layers) if layers is None else layers:
        for part, rank in (ranks or {"q": 4, "k": 4, "v": 4}).items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{part}_proj"
            for factor, shape in (("A", (rank, tiny.hidden)), ("B", (rows[part], rank))):
                values = random.standard_normal(shape) * 0.3
                tensors[f"{name}.lora_{factor}.weight"] = values.astype(np.float32)
    return tensors


def lora_bytes(tensors: Mapping[str, Any], **metadata: str) -> bytes:
    """A safetensors file of `tensors`."""
    return bytes(save(dict(tensors), metadata=metadata or None))


def merged(weights: dict[str, Array], lora: dict[str, Array], alpha: float) -> dict[str, Array]:
    """The weights of a model into which an adapter has been folded, computed in float64."""
    out = dict(weights)
    for name, down in lora.items():
        if ".lora_A." not in name:
            continue
        up = lora[name.replace("lora_A", "lora_B")].astype(np.float64)
        target = name.removeprefix("base_model.model.").replace(".lora_A", "")
        change = up @ down.astype(np.float64) * (alpha / len(down))
        out[target] = (weights[target] + change).astype(np.float32)
    return out


@attrs.frozen
class Merged(Tiny):
    """A tiny model with an adapter folded into its weights."""

    lora: dict[str, Array] = attrs.field(factory=dict, kw_only=True)
    alpha: float = attrs.field(default=1.0, kw_only=True)

    def weights(self) -> dict[str, Array]:
        return merged(Tiny.weights(self), self.lora, self.alpha)


def adapted(
    passes: Sequence[Pass],
    slots: Sequence[int],
    seeds: Sequence[int | None] | None = None,
    **more: Any,
) -> Batch:
    """A batch of `passes` with an adapter slot each (-1: none), noisy where there is a seed."""
    seeds = seeds or [None] * len(passes)
    return make_batch(
        passes,
        adapters=ints(slots),
        noisy=np.array([seed is not None for seed in seeds], dtype=np.bool_),
        noise_seeds=np.array([seed or 0 for seed in seeds], dtype=np.int64),
        **more,
    )
