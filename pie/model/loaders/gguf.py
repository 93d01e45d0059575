"""From a GGUF file to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from pie.errors import ModelError

from ..chat import stop_tokens
from ..checkpoint import Checkpoint, Tensors
from ..config import LlamaConfig, QKNorm
from ..packed.matrix import Matrix
from ..rope import Rope, linear
from ..tokenizer import tokenizer_from_gguf
from .gguf_file import GGUFFile, GGUFTensor, read_gguf

T = TypeVar("T")

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_INTERLEAVED = ("llama",)
"""Architectures whose files pair neighbouring rotary dimensions instead of two halves."""


def load_gguf(path: Path) -> Checkpoint:
    """Understand `path`; ModelError says in one line what is wrong with it."""
    file = read_gguf(path)
    facts = _Facts(file)
    architecture = facts.take("general.architecture", str)
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{path}: architecture {architecture!r} is not supported "
            f"({', '.join(ARCHITECTURES)} are)"
        )
    config = _config(facts, architecture)
    template = facts.optional("tokenizer.chat_template", str, "")
    return Checkpoint(
        name=path.stem,
        description=facts.optional("general.name", str, path.stem),
        config=config,
        tensors=_tensors(file, config, interleaved=architecture in _INTERLEAVED),
        tokenizer=tokenizer_from_gguf(file.metadata, str(path)),
        prompt_template=template,
        stop_tokens=stop_tokens(*_vocabulary_facts(facts)),
    )


@attrs.frozen
class _Facts:
    """Metadata with types checked."""

    file: GGUFFile

    def optional(self, key: str, kind: type[T], default: T) -> T:
        return self.take(key, kind) if key in self.file.metadata else default

    def take(self, key: str, kind: type[T]) -> T:
        if key not in self.file.metadata:
            raise ModelError(f"{self.file.path}: metadata {key} is missing")
        value: Any = self.file.metadata[key]
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind):
            raise ModelError(f"{self.file.path}: metadata {key} is not of type {kind.__name__}")
        return value


def _vocabulary_facts(facts: _Facts) -> tuple[list[str], list[int]]:
    """Texts of all tokens, and the ids that the file names as ends."""
    texts = facts.take("tokenizer.ggml.tokens", list)
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return texts, [facts.take(key, int) for key in keys if key in facts.file.metadata]


def _config(facts: _Facts, architecture: str) -> LlamaConfig:
    path, tensors = facts.file.path, facts.file.tensors

    def of_arch(key: str) -> int:
        return facts.take(f"{architecture}.{key}", int)

    heads, hidden = of_arch("attention.head_count"), of_arch("embedding_length")
    head_dim = facts.optional(f"{architecture}.attention.key_length", int, hidden // max(heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        size = facts.optional(f"{architecture}.{key}", int, head_dim)
        if size != head_dim:
            raise ModelError(f"{path}: {key} {size} differs from the head size {head_dim}")
    if facts.optional(f"{architecture}.expert_count", int, 0):
        raise ModelError(f"{path}: mixtures of experts are not supported")
    if "token_embd.weight" not in tensors:
        raise ModelError(f"{path}: tensor token_embd.weight is missing")
    layers = of_arch("block_count")
    window = facts.optional(f"{architecture}.attention.sliding_window", int, 0)
    return LlamaConfig(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=facts.optional(f"{architecture}.attention.head_count_kv", int, heads),
        head_dim=head_dim,
        ffn=of_arch("feed_forward_length"),
        vocabulary=tensors["token_embd.weight"].shape[0],
        context_length=of_arch("context_length"),
        norm_epsilon=facts.take(f"{architecture}.attention.layer_norm_rms_epsilon", float),
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        qk_norm=QKNorm.HEAD if "blk.0.attn_q_norm.weight" in tensors else QKNorm.NONE,
        rope=(_rope(facts, architecture, head_dim),) * layers,
        windows=(window,) * layers,
    )


def _rope(facts: _Facts, architecture: str, head_dim: int) -> Rope:
    """The rotation, with the divisors that a file has as a tensor (Llama 3's) or as a factor."""
    theta = facts.optional(f"{architecture}.rope.freq_base", float, 10000.0)
    kind = facts.optional(f"{architecture}.rope.scaling.type", str, "none")
    stored = facts.file.tensors.get("rope_freqs.weight")
    if stored is not None:
        return Rope(theta=theta, divisors=tuple(stored.float32().tolist()))
    if kind == "linear":
        factor = facts.optional(f"{architecture}.rope.scaling.factor", float, 1.0)
        return Rope(theta=theta, divisors=linear(head_dim // 2, factor))
    if kind != "none":
        raise ModelError(f"{facts.file.path}: rope scaling {kind!r} is not supported")
    return Rope(theta=theta)


def _tensors(file: GGUFFile, config: LlamaConfig, *, interleaved: bool) -> Tensors:
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    matrices: dict[str, Matrix] = {}
    for name, tensor in file.tensors.items():
        heads = 0
        if interleaved and ".attn_q." in name:
            heads = config.heads
        if interleaved and ".attn_k." in name:
            heads = config.kv_heads
        if heads and tensor.shape[0] % (2 * heads):
            heads = 0  # whoever takes it is told that its shape is wrong
        readers[name] = partial(_read, tensor, heads)
        if len(tensor.shape) == 2:
            matrices[name] = _matrix(file, tensor, heads)
    tensors = Tensors(readers, str(file.path), matrices)
    tensors.drop(["rope_freqs.weight"])  # its numbers are in the config
    return tensors


def _matrix(file: GGUFFile, tensor: GGUFTensor, interleaved_heads: int) -> Matrix:
    outputs, inputs = tensor.shape
    return Matrix(
        name=tensor.name,
        format=tensor.kind.name,
        inputs=inputs,
        rows=tensor.raw.reshape(outputs, tensor.raw.size // max(1, outputs)),
        order=_halves(np.arange(outputs), interleaved_heads) if interleaved_heads else None,
        file=file.file,
    )


def _read(tensor: GGUFTensor, interleaved_heads: int) -> torch.Tensor:
    values = tensor.float32()
    return torch.from_numpy(_halves(values, interleaved_heads) if interleaved_heads else values)


def _halves(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of a head go from (0, h, 1, h + 1, ...) to (0, 1, ..., h, ...)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
