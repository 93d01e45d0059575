"""From a Hugging Face folder (config.json, *.safetensors, tokenizer.json) to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pie.errors import ModelError

from ..chat import stop_tokens
from ..checkpoint import Checkpoint, Tensors
from ..packed.matrix import Matrix
from ..tokenizer_json import tokenizer_from_json
from .families import FAMILIES, LAYER_NAMES, Family
from .hf_config import hf_config
from .safetensors_file import read_matrices

_OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def load_folder(folder: Path) -> Checkpoint:
    """Understand `folder`; ModelError says in one line what is wrong with it."""
    path = folder / "config.json"
    facts = _json(path)
    kind = facts.get("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"{folder}: model type {kind!r} is not supported ({', '.join(FAMILIES)} are)"
        )
    family = FAMILIES[kind]
    readers, matrices = _readers(folder, family)
    tokenizer = tokenizer_from_json(folder / "tokenizer.json")
    template, ends = _chat(folder)
    _, texts = tokenizer.special_tokens()
    present = [text.decode() for text in texts]
    named = [present.index(end) for end in ends if end in present]
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
        stop_tokens=stop_tokens(present, named),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object")
    return content


def _chat(folder: Path) -> tuple[str, list[str]]:
    """The chat template, and the texts of the tokens that the folder names as ends."""
    path = folder / "tokenizer_config.json"
    facts = _json(path) if path.exists() else {}
    template = facts.get("chat_template") or ""
    if isinstance(template, list):  # named templates
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", "")
    beside = folder / "chat_template.jinja"
    if beside.exists():
        template = beside.read_text(encoding="utf-8")
    end = facts.get("eos_token")
    if isinstance(end, dict):
        end = end.get("content")
    return template, [end] if end else []


def _readers(
    folder: Path, family: Family
) -> tuple[dict[str, Callable[[], torch.Tensor]], dict[str, Matrix]]:
    """Readers and matrices by canonical name, over all safetensors files of the folder."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted({folder / name for name in _json(index).get("weight_map", {}).values()})
    else:
        files = [folder / "model.safetensors"]
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    matrices: dict[str, Matrix] = {}
    canonical = partial(_canonical, layer_names={**LAYER_NAMES, **family.names})
    for file in files:
        try:
            opened: Any = safe_open(file, framework="pt")
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: cannot be read as safetensors: {error}") from None
        for name in opened.keys():  # noqa: SIM118 - not a dict
            if not name.endswith(".rotary_emb.inv_freq"):
                read = partial(opened.get_tensor, name)
                if family.less_one and name.endswith("norm.weight"):
                    read = partial(_plus_one, read)
                readers[canonical(name)] = read
        matrices |= {canonical(name): found for name, found in read_matrices(file).items()}
    return readers, matrices


def _plus_one(read: Callable[[], torch.Tensor]) -> torch.Tensor:
    return read().to(torch.float32) + 1.0


def _canonical(name: str, layer_names: dict[str, str]) -> str:
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    parts = name.split(".")  # model.layers.N.<path>.weight
    path = ".".join(parts[3:-1])
    if parts[:2] == ["model", "layers"] and path in layer_names:
        return f"blk.{parts[2]}.{layer_names[path]}.{parts[-1]}"
    return name
