"""A Hugging Face folder made of a GGUF file; runs with the Python of vLLM's environment.

    python convert_child.py MODEL.gguf FOLDER DTYPE

transformers reads the GGUF file, but does not write a model that came from one; and of its
tokenizer it forgets that digits are split one by one, which is what `smollm` means in the file.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

transformers: Any = importlib.import_module("transformers")  # of another environment
torch: Any = importlib.import_module("torch")

_DIGITS = {"type": "Digits", "individual_digits": True}


def convert(source: Path, folder: Path, dtype: str) -> None:
    place, name = str(source.parent), source.name
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        place, gguf_file=name, dtype=torch.float32
    )
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = getattr(torch, dtype)
    plain = transformers.LlamaForCausalLM(config)
    plain.load_state_dict({name: value.clone() for name, value in loaded.state_dict().items()})
    plain.tie_weights()
    plain.to(getattr(torch, dtype)).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)
    split_digits(folder / "tokenizer.json")


def split_digits(file: Path) -> None:
    """Put a splitter of digits before the others, unless there is one."""
    facts = json.loads(file.read_text())
    before = facts["pre_tokenizer"]
    parts = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    if not any(part["type"] == "Digits" for part in parts):
        facts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [_DIGITS, *parts]}
        file.write_text(json.dumps(facts, ensure_ascii=False))


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
