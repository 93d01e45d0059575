"""Models that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pie.model import load
from pie.model.runner import TorchRunner
from tests.model.tiny import Tiny, write_gguf
from tests.model_file import smollm2_path


@pytest.fixture(scope="session")
def smollm2() -> TorchRunner:
    """The real model in float32."""
    runner = load(smollm2_path(), dtype="float32", pages=1024)
    assert isinstance(runner, TorchRunner)
    return runner


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TorchRunner:
    """A tiny random Llama; tests write what they read, so they can share its pages."""
    path = write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", Tiny())
    runner = load(path, dtype="float32", pages=128, embedding_slots=8)
    assert isinstance(runner, TorchRunner)
    return runner


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products mostly wait for each other on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
