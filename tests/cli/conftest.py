"""A tiny model and a home that the tests of the command line share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from pie.cli import command
from tests.model.tiny import Tiny, write_gguf
from tests.model_file import model_home


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file that is loaded in milliseconds."""
    return write_gguf(
        tmp_path_factory.mktemp("model") / "tiny.gguf", Tiny(hidden=64, head_dim=32, ffn=96)
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PIE_HOME."""
    monkeypatch.setenv("PIE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def shared_home(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's PIE_HOME: the model and what was built before are kept there."""
    monkeypatch.setenv("PIE_HOME", str(model_home()))
    return model_home()


@attrs.frozen
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def collector() -> Iterator[None]:
    """Undo what `pie run` does to the collector of cycles of its process, which is ours here."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def pie(capfd: pytest.CaptureFixture[str], collector: None) -> Callable[..., Ran]:
    """Run a command line in this process."""

    def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = command([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run
