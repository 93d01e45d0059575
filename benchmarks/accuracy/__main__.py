"""Per format: the model requantised, its float32 path against its packed one, on one text."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import attrs

from pie.cli.home import DEFAULT_MODEL, open_home
from pie.model import DType, load
from pie.model.store import pull

from .compare import Divergence, compare, windows
from .files import requantise
from .folder import write_folder

FORMATS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16", "F32")
TEXT = Path(__file__).parents[2] / "tests" / "vectors" / "accuracy.txt"
GOALS = {"Q8_0": 0.005, "Q4_1": 0.005}
"""Largest mean KL."""

KEPT = "BF16-kept"
"""The name of BF16 without its conversion to 8 bits."""

FOLDER = "BF16-folder"
"""The name of BF16 in a Hugging Face folder."""


def rewrite(source: Path, folder: Path, name: str) -> tuple[Path, DType]:
    """`source` in a format, written into `folder`, and how it is to be loaded."""
    if name == FOLDER:
        write_folder(source, folder / name)
        return folder / name, "auto"
    path = folder / f"{name}.gguf"
    requantise(source, path, "BF16" if name == KEPT else name)
    return path, "bfloat16" if name == KEPT else "auto"


def measure(path: Path, text: str, size: int, dtype: DType = "auto") -> Divergence:
    """The packed path of the model at `path` against its float32 path."""
    exact = load(path, dtype="float32", adapter_slots=0)
    fast = load(path, dtype=dtype, adapter_slots=0)
    try:
        if type(fast) is type(exact):
            raise SystemExit("this machine has no packed runner: there is nothing to compare")
        tokens = exact.info.tokenizer.encode(text)
        batches = list(windows(tokens, size, exact.info.page_size))
        runners: tuple[Any, Any] = exact, fast
        return compare(runners[0].logits, runners[1].logits, batches)
    finally:
        fast.close()
        exact.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.accuracy")
    parser.add_argument(
        "--formats", default=",".join([*FORMATS, KEPT, FOLDER]), help="of them, with commas"
    )
    parser.add_argument("--model", type=Path, help="a GGUF file; else the default model")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--window", type=int, default=512, help="tokens of a sequence")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    source = options.model or pull(DEFAULT_MODEL, open_home().path)
    found: dict[str, Any] = {}
    text = options.text.read_text(encoding="utf-8")
    print("format        tokens   top-1   mean KL   max KL   goal")
    for name in options.formats.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path, dtype = rewrite(source, Path(folder), name)
            result = measure(path, text, options.window, dtype)
        found[name] = attrs.asdict(result)
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"{'met' if result.mean_kl <= goal else 'MISSED'} {goal}"
        print(
            f"{name:11}  {result.tokens:7}  {result.agreement:6.4f}  {result.mean_kl:8.5f}"
            f"  {result.max_kl:7.4f}   {verdict}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
