"""What makes KV pages valid, and what does not (contract R7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie.errors import ModelError
from pie.model.fingerprint import fingerprint


def _folder(path: Path, **changed: bytes) -> Path:
    path.mkdir()
    names = {"config": ".json", "model": ".safetensors", "tokenizer_config": ".json"}
    for name, suffix in names.items():
        (path / (name + suffix)).write_bytes(changed.get(name, name.encode()))
    return path


def test_a_file_is_known_by_its_contents(tmp_path: Path) -> None:
    for name, content in {"a": b"weights", "b": b"weights", "c": b"others"}.items():
        (tmp_path / name).write_bytes(content)
    first, same, other = (fingerprint(tmp_path / name, "layout") for name in "abc")
    assert first == same != other
    assert fingerprint(tmp_path / "a", "another layout") != first


def test_a_folder_is_known_by_its_config_and_weights(tmp_path: Path) -> None:
    first = fingerprint(_folder(tmp_path / "a"), "layout")
    assert fingerprint(_folder(tmp_path / "b", tokenizer_config=b"new"), "layout") == first
    assert fingerprint(_folder(tmp_path / "c", config=b"new"), "layout") != first
    assert fingerprint(_folder(tmp_path / "d", model=b"new"), "layout") != first


def test_a_model_that_has_gone_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.gguf: cannot be read: No such file"):
        fingerprint(tmp_path / "gone.gguf", "layout")
