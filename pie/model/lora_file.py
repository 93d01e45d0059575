"""LoRA adapters as safetensors bytes, under the names that PEFT gives their tensors.

    base_model.model.model.layers.{i}.self_attn.{q,k,v}_proj.lora_{A,B}.weight

The prefix `base_model.model.` may be missing and the adapter's name `.default` may stand before
`.weight`. Alpha is that of the projection's `.alpha` tensor, else of a tensor `alpha`, else of
`lora_alpha` in the metadata, else the rank (a scale of one).
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

import attrs
import numpy as np
from safetensors import SafetensorError, deserialize

from pie.batch import Floats
from pie.errors import GuestError

from .config import LlamaConfig

TARGETS = ("q", "k", "v")

_PREFIX = "base_model.model.model.layers"
_MODULE = r"(?:base_model\.model\.)?(?:model\.)?layers\.(\d{1,6})\.self_attn\.([qkv])_proj"
_FACTOR = re.compile(_MODULE + r"\.lora_([AB])(?:\.default)?\.weight")
_ALPHA = re.compile(_MODULE + r"\.alpha")

Place: TypeAlias = tuple[int, str]
"""Layer, and one of TARGETS."""


@attrs.frozen(eq=False)
class Projection:
    """A change of one projection: `x @ down.T @ up.T * alpha / rank` is added to its outputs."""

    down: Floats  # [rank, hidden], PEFT's lora_A
    up: Floats  # [outputs, rank], PEFT's lora_B
    alpha: float

    @property
    def rank(self) -> int:
        return len(self.down)


Adapter: TypeAlias = dict[Place, Projection]
"""What an adapter changes; a projection that is not there stays as it is."""


def outputs(config: LlamaConfig) -> dict[str, int]:
    """Output rows of each target."""
    kv = config.kv_heads * config.head_dim
    return {"q": config.heads * config.head_dim, "k": kv, "v": kv}


def read_adapter(data: bytes, config: LlamaConfig, max_rank: int) -> Adapter:
    """Understand an adapter for a model of this shape; GuestError names what is wrong."""
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]  # the library's
    except SafetensorError as error:
        raise GuestError(
            f"upload-adapter: {len(data)} bytes are not safetensors: {error} (X8)"
        ) from None
    factors: dict[tuple[int, str, str], Floats] = {}
    alphas: dict[Place, float] = {}
    common = _metadata_alpha(data)
    for name, tensor in sorted(tensors, key=lambda entry: entry[0]):
        if found := _FACTOR.fullmatch(name):
            key = (int(found[1]), found[2], found[3])
            if key in factors:
                raise GuestError(f"upload-adapter: two tensors for {name} (X8)")
            factors[key] = _values(name, tensor)
        elif found := _ALPHA.fullmatch(name):
            alphas[int(found[1]), found[2]] = _scalar(name, tensor)
        elif name == "alpha":
            common = _scalar(name, tensor)
        else:
            raise GuestError(
                f"upload-adapter: {name} has no place: adapters change "
                "self_attn.q_proj, k_proj and v_proj by lora_A and lora_B (X8)"
            )
    if not factors:
        raise GuestError("upload-adapter: there are no LoRA tensors in it (X8)")
    return {
        place: _projection(place, factors, alphas.get(place, common), config, max_rank)
        for place in sorted({(layer, target) for layer, target, _ in factors} | alphas.keys())
    }


def write_adapter(adapter: Adapter) -> bytes:
    """Bytes from which `read_adapter` makes the same adapter; equal for equal adapters."""
    tensors: dict[str, Floats] = {}
    alphas = {projection.alpha for projection in adapter.values()}
    metadata = {"rank": str(max(projection.rank for projection in adapter.values()))}
    if len(alphas) == 1:
        metadata["lora_alpha"] = repr(alphas.pop())
    for (layer, target), projection in sorted(adapter.items()):
        module = f"{_PREFIX}.{layer}.self_attn.{target}_proj"
        tensors[f"{module}.lora_A.weight"] = projection.down
        tensors[f"{module}.lora_B.weight"] = projection.up
        if "lora_alpha" not in metadata:
            tensors[f"{module}.alpha"] = np.array([projection.alpha], dtype=np.float32)
    return _safetensors(tensors, metadata)


def _safetensors(tensors: dict[str, Floats], metadata: dict[str, str]) -> bytes:
    """The file format by hand: the library writes metadata in an order that varies by process."""
    header: dict[str, Any] = {"__metadata__": metadata}
    parts: list[bytes] = []
    at = 0
    for name, values in tensors.items():
        parts.append(values.astype("<f4").tobytes())
        end = at + len(parts[-1])
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _metadata_alpha(data: bytes) -> float | None:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    text = metadata.get("lora_alpha", metadata.get("alpha"))
    if text is None:
        return None
    try:
        alpha = float(text)
    except ValueError:
        raise GuestError(f"upload-adapter: lora_alpha {text!r} is not a number (X8)") from None
    if not abs(alpha) <= np.finfo(np.float32).max:
        raise GuestError(f"upload-adapter: lora_alpha {text} is no finite float32 (X8)")
    return float(np.float32(alpha))  # so that a tensor can carry it, too


def _values(name: str, tensor: dict[str, Any]) -> Floats:
    """A tensor as float32 of its shape, checked to be finite."""
    data, dtype = tensor["data"], tensor["dtype"]
    if dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F16", "F32"):
        values = np.frombuffer(data, "<f2" if dtype == "F16" else "<f4").astype(np.float32)
    else:
        raise GuestError(
            f"upload-adapter: {name} has dtype {dtype}; BF16, F16 and F32 are read (X8)"
        )
    if not np.isfinite(values).all():
        raise GuestError(f"upload-adapter: {name} holds values that are not finite (X8)")
    return values.reshape(tensor["shape"])


def _scalar(name: str, tensor: dict[str, Any]) -> float:
    values = np.ravel(_values(name, tensor))
    if len(values) != 1:
        raise GuestError(f"upload-adapter: {name} has shape {tensor['shape']}, not one value (X8)")
    return float(values[0])


def _projection(
    place: Place,
    factors: dict[tuple[int, str, str], Floats],
    alpha: float | None,
    config: LlamaConfig,
    max_rank: int,
) -> Projection:
    layer, target = place
    name = f"layers.{layer}.self_attn.{target}_proj"
    if layer >= config.layers:
        raise GuestError(f"upload-adapter: {name}: this model has {config.layers} layers (X8)")
    down, up = factors.get((*place, "A")), factors.get((*place, "B"))
    if down is None or up is None:
        missing = "lora_A" if down is None else "lora_B"
        raise GuestError(f"upload-adapter: {name} lacks {missing} (X8)")
    rank = down.shape[0] if down.ndim else 0
    if not 1 <= rank <= max_rank:
        raise GuestError(f"upload-adapter: {name} has rank {rank}, not 1 to {max_rank} (X8)")
    rows = outputs(config)[target]
    for part, values, shape in (
        ("lora_A", down, (rank, config.hidden)),
        ("lora_B", up, (rows, rank)),
    ):
        if values.shape != shape:
            raise GuestError(
                f"upload-adapter: {name}.{part} has shape {list(values.shape)}, "
                f"this model asks for {list(shape)} (X8)"
            )
    return Projection(down, up, float(rank) if alpha is None else alpha)
