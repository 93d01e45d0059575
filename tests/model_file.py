"""The real model for tests: SmolLM2-135M-Instruct, fetched once into the repository's .build."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from pie.model.store import pull

NAME = "smollm2-135m-instruct"


@cache
def model_home() -> Path:
    """PIE_HOME, or the repository's own."""
    default = Path(__file__).parents[1] / ".build" / "home"
    return Path(os.environ.get("PIE_HOME", default))


@cache
def smollm2_path() -> Path:
    """Path of the GGUF file; downloads it when it is not there yet."""
    return pull(NAME, model_home())
