"""A Hugging Face folder with the weights of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders

from pie.model.config import LlamaConfig
from pie.model.loaders.families import LAYER_NAMES
from pie.model.loaders.gguf_file import read_gguf
from pie.model.loading import read_checkpoint
from pie.model.tokenizer import HFTokenizer

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INNER = {canonical: path for path, canonical in LAYER_NAMES.items()}


def write_folder(source: Path, folder: Path) -> None:
    """Write `source`, a file of the architecture `llama`, with its matrices in bfloat16."""
    file, checkpoint = read_gguf(source), read_checkpoint(source)
    if file.metadata["general.architecture"] != "llama":
        raise SystemExit(f"{source}: only files of the architecture llama become folders")
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in file.tensors.items():
        values = checkpoint.tensors.take(name, *tensor.shape)
        tensors[_published(name)] = values.bfloat16() if values.dim() == 2 else values
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_facts(checkpoint.config)))
    assert isinstance(checkpoint.tokenizer, HFTokenizer)
    encoder = Tokenizer.from_str(checkpoint.tokenizer._encoder.to_str())
    encoder.decoder = decoders.ByteLevel()
    encoder.save(str(folder / "tokenizer.json"))


def _published(name: str) -> str:
    """A canonical name as Hugging Face folders have it."""
    if not name.startswith("blk."):
        part, kind = name.rsplit(".", 1)
        return f"{_OUTER[part]}.{kind}"
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_INNER[part]}.{kind}"


def _facts(config: LlamaConfig) -> dict[str, Any]:
    """Of a config.json; the rotation must be a plain one."""
    [rope] = {*config.rope}
    assert rope is not None
    assert not rope.divisors, "the rotation of this file is scaled"
    return {
        "model_type": "llama",
        "num_hidden_layers": config.layers,
        "hidden_size": config.hidden,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_length,
        "rope_theta": rope.theta,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
    }
