"""From a model file or folder to a runner."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import attrs

from pie.batch import ModelInfo, ModelRunner
from pie.errors import ModelError, UsageError
from pie.kernels.cpu.layout import Kind

from . import DType, KVType
from .adapter import LoraSupport
from .checkpoint import Checkpoint
from .config import PAGE_SIZE, LlamaConfig
from .fingerprint import fingerprint
from .loaders.gguf import load_gguf
from .loaders.safetensors import load_folder
from .packed.choice import obstacle_of_machine, obstacle_of_model
from .packed.matrix import NotPackable

if TYPE_CHECKING:
    from pie.kernels.cpu.lines import Form

logger = logging.getLogger(__name__)


_DEFAULT_TOKENS = 1 << 16
_MEMORY_SHARE = 4


def read_checkpoint(path: Path) -> Checkpoint:
    """Understand a GGUF file or a Hugging Face folder."""
    if path.is_dir():
        return load_folder(path)
    if path.is_file():
        return load_gguf(path)
    raise ModelError(f"{path}: no such file or folder")


def default_pages(page_bytes: int) -> int:
    """Pages for 65,536 tokens, or what fits a quarter of the machine's memory if that is less.

    Memory that no page has used yet costs nothing: the system hands it out when it is written.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MEMORY_SHARE
    return max(1, min(_DEFAULT_TOKENS // PAGE_SIZE, memory // page_bytes))


def load_runner(
    path: Path,
    *,
    dtype: DType,
    kv: KVType,
    pages: int | None,
    embedding_slots: int,
    adapter_slots: int,
    max_adapter_rank: int,
    threads: int | None,
    name: str | None,
) -> ModelRunner:
    """Load what `path` names; see `pie.model.load`."""
    if dtype not in get_args(DType):
        raise UsageError(f"dtype {dtype!r} is unknown; use {', '.join(get_args(DType))}")
    if kv not in get_args(KVType):
        raise UsageError(f"kv {kv!r} is unknown; use {', '.join(get_args(KVType))}")
    if adapter_slots < 0 or max_adapter_rank < 1:
        raise UsageError(
            f"{adapter_slots} adapter slots of rank up to {max_adapter_rank}: "
            "slots start at 0, ranks at 1"
        )
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    support = LoraSupport(config, adapter_slots, max_adapter_rank)
    floats = Kind.BF16 if dtype == "bfloat16" else Kind.Q8
    packed = dtype != "float32" and _can_be_packed(checkpoint, floats)
    if pages is None:
        exact_bytes = config.kv_bytes_per_token * PAGE_SIZE
        pages = default_pages(_packed_page_bytes(config, kv) if packed else exact_bytes)
    info = ModelInfo(
        name=name or checkpoint.name,
        tokenizer=checkpoint.tokenizer,
        vocabulary=config.vocabulary,
        context_length=config.context_length,
        page_size=PAGE_SIZE,
        pages=pages,
        embedding_slots=embedding_slots,
        fingerprint=partial(fingerprint, path, f"float32, {PAGE_SIZE} slots a page"),
        description=checkpoint.description,
        prompt_template=checkpoint.prompt_template,
        stop_tokens=checkpoint.stop_tokens,
    )
    if adapter_slots:
        info = attrs.evolve(info, adapters=support, traits=(*info.traits, "adapter"))
    if packed:
        fingerprint_of = partial(fingerprint, path)
        return _packed_runner(fingerprint_of, checkpoint, info, support, threads, floats, kv)
    if kv != "auto":
        raise UsageError(f"kv {kv!r} is for packed models; {info.name} runs in float32")
    return _torch_runner(checkpoint, info, support, threads)


def _can_be_packed(checkpoint: Checkpoint, floats: Kind) -> bool:
    """Whether the fast path is open to a model; says in the log why not."""
    reason = obstacle_of_machine() or obstacle_of_model(checkpoint.config)
    if reason is None:
        try:
            checkpoint.tensors.packed_bytes(floats)
        except NotPackable as error:
            reason = str(error)
    if reason is not None:
        logger.warning("model %s runs in float32, slowly: %s", checkpoint.name, reason)
    return reason is None


def _packed_page_bytes(config: LlamaConfig, kv: KVType) -> int:
    from pie.kernels.cpu.pages import page_bytes  # here and below: not everybody has llvmlite

    from .packed.heads import Heads

    return page_bytes(config.layers, config.kv_heads, Heads.of(config).width, _kv_form(kv))


def _kv_form(kv: KVType) -> Form:
    from pie.kernels.cpu.lines import Form

    return Form.INT8 if kv == "int8" else Form.BF16


def _torch_runner(
    checkpoint: Checkpoint, info: ModelInfo, support: LoraSupport, threads: int | None
) -> ModelRunner:
    import torch  # here and below: the other path needs none, and starts a second earlier

    from .llama import Llama
    from .runner import TorchRunner

    if threads is not None:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        model = Llama.build(checkpoint.config, checkpoint.tensors)
        return TorchRunner.build(model, info, support)


def _packed_runner(
    fingerprint_of: Callable[[str], str],
    checkpoint: Checkpoint,
    info: ModelInfo,
    support: LoraSupport,
    threads: int | None,
    floats: Kind,
    kv: KVType,
) -> ModelRunner:
    from .packed.following import MOST_STEPS
    from .packed.model import PackedModel
    from .packed.runner import PackedRunner, page_form

    model = PackedModel.build(checkpoint.config, checkpoint.tensors, floats)
    pages = _kv_form(kv)
    form = f"{page_form(pages)}, {floats.name} for floats"
    told = partial(fingerprint_of, form)
    info = attrs.evolve(info, fingerprint=told, multi_steps=MOST_STEPS)
    return PackedRunner(model, info, support, threads, kv_form=pages)
