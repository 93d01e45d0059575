"""From a model file or folder to a runner."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Literal

import attrs
import torch

from pie.batch import ModelInfo, ModelRunner
from pie.errors import ModelError, UsageError

from .adapter import LoraSupport
from .checkpoint import Checkpoint
from .config import PAGE_SIZE, LlamaConfig
from .fingerprint import fingerprint
from .llama import Llama
from .loaders.gguf import load_gguf
from .loaders.safetensors import load_folder
from .runner import TorchRunner

DType = Literal["float32", "auto"]

_DEFAULT_TOKENS = 1 << 16
_MEMORY_SHARE = 4


def read_checkpoint(path: Path) -> Checkpoint:
    """Understand a GGUF file or a Hugging Face folder."""
    if path.is_dir():
        return load_folder(path)
    if path.is_file():
        return load_gguf(path)
    raise ModelError(f"{path}: no such file or folder")


def default_pages(config: LlamaConfig) -> int:
    """Pages for 65,536 tokens, or what fits a quarter of the machine's memory if that is less.

    Memory that no page has used yet costs nothing: the system hands it out when it is written.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MEMORY_SHARE
    tokens = min(_DEFAULT_TOKENS, memory // config.kv_bytes_per_token)
    return max(1, tokens // PAGE_SIZE)


def load_runner(
    path: Path,
    *,
    dtype: DType = "auto",
    pages: int | None = None,
    embedding_slots: int = 128,
    adapter_slots: int = 8,
    max_adapter_rank: int = 64,
    threads: int | None = None,
    name: str | None = None,
) -> ModelRunner:
    """Load what `path` names; see `pie.model.load`."""
    if dtype not in ("float32", "auto"):
        raise UsageError(f"dtype {dtype!r} is unknown; use float32 or auto")
    if adapter_slots < 0 or max_adapter_rank < 1:
        raise UsageError(
            f"{adapter_slots} adapter slots of rank up to {max_adapter_rank}: "
            "slots start at 0, ranks at 1"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = read_checkpoint(path)
    with torch.inference_mode():
        model = Llama.build(checkpoint.config, checkpoint.tensors)
        support = LoraSupport(checkpoint.config, adapter_slots, max_adapter_rank)
        info = ModelInfo(
            name=name or checkpoint.name,
            tokenizer=checkpoint.tokenizer,
            vocabulary=checkpoint.config.vocabulary,
            context_length=checkpoint.config.context_length,
            page_size=PAGE_SIZE,
            pages=default_pages(checkpoint.config) if pages is None else pages,
            embedding_slots=embedding_slots,
            fingerprint=partial(fingerprint, path, f"float32, {PAGE_SIZE} slots a page"),
            description=checkpoint.description,
            prompt_template=checkpoint.prompt_template,
            stop_tokens=checkpoint.stop_tokens,
        )
        if adapter_slots:
            info = attrs.evolve(info, adapters=support, traits=(*info.traits, "adapter"))
        return TorchRunner.build(model, info, support)
