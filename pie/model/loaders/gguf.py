"""From a GGUF file to a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError

from ..chat import stop_tokens, with_tokens
from ..checkpoint import Checkpoint, Reader, Tensors
from ..config import LlamaConfig
from ..packed.matrix import Matrix
from ..tokenizer import tokenizer_from_gguf
from .gguf_config import Facts, gguf_config
from .gguf_families import GGUF_FAMILIES
from .gguf_file import GGUFFile, GGUFTensor, read_gguf


def load_gguf(path: Path) -> Checkpoint:
    """Understand `path`; ModelError says in one line what is wrong with it."""
    file = read_gguf(path)
    architecture = Facts(file).take("general.architecture", str)
    if architecture not in GGUF_FAMILIES:
        raise ModelError(
            f"{path}: architecture {architecture!r} is not supported "
            f"({', '.join(GGUF_FAMILIES)} are)"
        )
    facts, family = Facts(file, architecture), GGUF_FAMILIES[architecture]
    config = gguf_config(facts, family)
    template, stops = _chat(facts)
    return Checkpoint(
        name=path.stem,
        description=facts.optional("general.name", str, path.stem),
        config=config,
        tensors=_tensors(file, config, interleaved=family.interleaved),
        tokenizer=tokenizer_from_gguf(file.metadata, str(path)),
        prompt_template=template,
        stop_tokens=stops,
    )


def _chat(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """The chat template, and the tokens that end a turn."""
    texts = dict(enumerate(facts.take("tokenizer.ggml.tokens", list)))

    def named(kind: str) -> int:
        return facts.optional(f"tokenizer.ggml.{kind}_token_id", int, -1)

    begin, end = texts.get(named("bos"), ""), texts.get(named("eos"), "")
    template = facts.optional("tokenizer.chat_template", str, "")
    stops = stop_tokens(texts, [named(kind) for kind in ("eos", "eot", "eom")])
    return with_tokens(template, bos_token=begin, eos_token=end), stops


def _tensors(file: GGUFFile, config: LlamaConfig, *, interleaved: bool) -> Tensors:
    readers: dict[str, Reader] = {}
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


def _read(tensor: GGUFTensor, interleaved_heads: int) -> NDArray[np.float32]:
    values = tensor.float32()
    return _halves(values, interleaved_heads) if interleaved_heads else values


def _halves(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of a head go from (0, h, 1, h + 1, ...) to (0, 1, ..., h, ...)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
