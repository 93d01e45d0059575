"""A model's arithmetic behind `pie.batch.ModelRunner`; importing this does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pie.batch import ModelRunner

DType: TypeAlias = Literal["auto", "float32", "bfloat16"]
KVType: TypeAlias = Literal["auto", "int8"]


def load(
    path: str | Path,
    *,
    dtype: DType = "auto",
    kv: KVType = "auto",
    pages: int | None = None,
    embedding_slots: int = 128,
    adapter_slots: int = 8,
    max_adapter_rank: int = 64,
    threads: int | None = None,
    name: str | None = None,
) -> ModelRunner:
    """Load a GGUF file or a Hugging Face folder and make it ready to run.

    `float32` is the bit-invariant reference; `auto` is the fastest path for this machine, which
    keeps quantised weights as they are and makes 8 bits of others; `bfloat16` is the same path
    with weights in bfloat16, for files that have none quantised. `kv` "int8" keeps K and V in 8
    bits instead of 16, twice as many pages in the same memory; the reference has no such pages.
    An adapter slot takes memory once it holds something; with 0 the model takes no adapters.
    `pages` None means room for 65,536 tokens, or less in little memory. `threads` None means
    one for each processor, or torch's number; torch's holds for the whole process and must not
    change while bits matter. `name` None is the model's own.
    Raises ModelError, in one line, for what cannot be read.
    """
    from .loading import load_runner

    return load_runner(
        Path(path),
        dtype=dtype,
        kv=kv,
        pages=pages,
        embedding_slots=embedding_slots,
        adapter_slots=adapter_slots,
        max_adapter_rank=max_adapter_rank,
        threads=threads,
        name=name,
    )
