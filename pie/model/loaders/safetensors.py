"""From a Hugging Face folder (config.json, *.safetensors, tokenizer.json) to a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError

from ..checkpoint import Checkpoint, Reader, Tensors
from ..packed.matrix import Matrix
from ..tokenizer_json import tokenizer_from_json
from .families import FAMILIES, LAYER_NAMES, Family
from .hf_chat import hf_chat
from .hf_config import hf_config
from .json_file import read_json
from .safetensors_file import Stored, read_safetensors

_WITH_IMAGES = {"gemma3": "gemma3_text"}
"""Model types that also take images, and that of their text models, which are what is loaded."""

_OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")

_OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def load_folder(folder: Path) -> Checkpoint:
    """Understand `folder`; ModelError says in one line what is wrong with it."""
    path = folder / "config.json"
    facts = read_json(path)
    kind = facts.get("model_type")
    if kind in _WITH_IMAGES:
        text = {**facts, **(facts.get("text_config") or {})}
        facts, kind = text, _WITH_IMAGES[kind]
    if kind not in FAMILIES:
        raise ModelError(
            f"{folder}: model type {kind!r} is not supported "
            f"({', '.join([*FAMILIES, *_WITH_IMAGES])} are)"
        )
    family = FAMILIES[kind]
    readers, matrices = _readers(folder, family)
    tokenizer = tokenizer_from_json(folder / "tokenizer.json")
    template, stops = hf_chat(folder, facts, tokenizer)
    config = hf_config(facts, family, readers, path)
    tensors = Tensors(readers, str(folder), matrices)
    if config.tied:
        tensors.drop(["output.weight"])
    return Checkpoint(
        name=folder.name,
        description=f"{kind}, {config.layers} layers of {config.hidden}",
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        prompt_template=template,
        stop_tokens=stops,
    )


def _readers(folder: Path, family: Family) -> tuple[dict[str, Reader], dict[str, Matrix]]:
    """Readers and matrices by canonical name, over all safetensors files of the folder."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted({folder / name for name in read_json(index).get("weight_map", {}).values()})
    else:
        files = [folder / "model.safetensors"]
    readers: dict[str, Reader] = {}
    matrices: dict[str, Matrix] = {}
    for file in files:
        for name, stored in read_safetensors(file).items():
            if not _is_text(name):
                continue
            canonical = _canonical(name, {**LAYER_NAMES, **family.names})
            less_one = family.less_one and name.endswith("norm.weight")
            readers[canonical] = partial(_plus_one, stored) if less_one else stored.float32
            if matrix := stored.matrix():
                matrices[canonical] = matrix
    return readers, matrices


def _is_text(name: str) -> bool:
    """Whether a tensor is of the text model, and no table that the model makes itself."""
    inner = name.removeprefix("model.")
    return not inner.startswith(_OTHER_PARTS) and not name.endswith(".rotary_emb.inv_freq")


def _plus_one(stored: Stored) -> NDArray[np.float32]:
    return stored.float32() + np.float32(1)


def _canonical(name: str, layer_names: dict[str, str]) -> str:
    # Where there are images, the text model is `language_model`, inside `model` or around it.
    name = name.removeprefix("language_model.").replace("model.language_model.", "model.", 1)
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    parts = name.split(".")  # model.layers.N.<path>.weight
    path = ".".join(parts[3:-1])
    if parts[:2] == ["model", "layers"] and path in layer_names:
        return f"blk.{parts[2]}.{layer_names[path]}.{parts[-1]}"
    return name
