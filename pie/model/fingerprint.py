"""What makes the contents of KV pages valid, in one word (contract R7)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pie.errors import ModelError


def fingerprint(path: Path, layout: str) -> str:
    """SHA-256 over a model's files and the layout of its pages.

    Of a folder, these are its config and weights: another chat template changes no page. Reads
    everything, at about 1 GB/s. ModelError if it cannot.
    """
    files = [path]
    if path.is_dir():
        files = [path / "config.json", *sorted(path.glob("*.safetensors"))]
    digest = hashlib.sha256(layout.encode())
    for file in files:
        try:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise ModelError(f"{file}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
