"""The files in which exported KV pages outlive the engine (contract R7).

A file is: magic, length of the header, header (JSON), SHA-256 of the header, page contents. Its
name is a hash of user and export, so that neither can reach out of the folder. A file is whole or
absent: it is written under another name, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import UsageError

logger = logging.getLogger(__name__)

MAGIC = b"pie-kv-1"
_MOST_HEADER_BYTES = 1 << 20
_SUFFIX, _UNFINISHED = ".kv", ".new"


class BadFile(Exception):
    """A file cannot be used; the text says why."""


@attrs.frozen(kw_only=True)
class Header:
    """What a file is about."""

    user: str
    model: str
    fingerprint: str
    """Of what makes the contents valid: see `ModelInfo.fingerprint`."""
    name: str
    pages: int
    page_bytes: int
    checksum: str
    """SHA-256 of the contents."""

    def encoded(self) -> bytes:
        """The file up to its contents."""
        text = json.dumps(attrs.asdict(self)).encode()
        return MAGIC + len(text).to_bytes(4, "little") + text + hashlib.sha256(text).digest()


def read_header(file: BinaryIO) -> Header:
    """The header; `file` stands at the contents then. BadFile if it is not one of ours."""
    if file.read(len(MAGIC)) != MAGIC:
        raise BadFile("it does not begin like an export")
    length = int.from_bytes(file.read(4), "little")
    text = file.read(min(length, _MOST_HEADER_BYTES))
    if len(text) != length or file.read(32) != hashlib.sha256(text).digest():
        raise BadFile("its header is damaged")
    return Header(**json.loads(text))


def page_contents(header: Header, data: bytes) -> NDArray[np.uint8]:
    """[pages, page bytes] of what follows the header. BadFile if it is not what was written."""
    if len(data) != header.pages * header.page_bytes:
        raise BadFile(
            f"it has {len(data)} bytes of {header.pages} pages of {header.page_bytes} bytes"
        )
    if hashlib.sha256(data).hexdigest() != header.checksum:
        raise BadFile("the checksum of its pages is wrong")
    return np.frombuffer(data, dtype=np.uint8).reshape(header.pages, header.page_bytes)


@attrs.frozen
class ExportFolder:
    """The files of one model. Every method blocks; call one at a time, from any thread."""

    path: Path
    model: str
    fingerprint: str

    @staticmethod
    def open(exports: Path, model: str, fingerprint: str) -> ExportFolder:
        """The folder of a model below `exports`. UsageError if it cannot be made."""
        path = exports / hashlib.sha256(model.encode()).hexdigest()[:32]
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot(path, error) from error
        return ExportFolder(path, model, fingerprint)

    def scan(self) -> list[Header]:
        """What there is. Unusable files are deleted, with one warning for all of them."""
        found: list[Header] = []
        unusable: list[str] = []
        try:
            for path in sorted(self.path.iterdir()):
                if path.suffix == _UNFINISHED:
                    path.unlink()
                    continue
                try:
                    found.append(self._examine(path))
                except BadFile as error:
                    unusable.append(f"{path.name}: {error}")
                    path.unlink()
        except OSError as error:
            raise _cannot(self.path, error) from error
        if unusable:
            logger.warning(
                "model %s: deleted %d exports in %s that cannot be used; the first is %s",
                self.model,
                len(unusable),
                self.path,
                unusable[0],
            )
        return found

    def _examine(self, path: Path) -> Header:
        with path.open("rb") as file:
            header = read_header(file)
            size = os.fstat(file.fileno()).st_size - file.tell()
        if (header.model, header.fingerprint) != (self.model, self.fingerprint):
            raise BadFile("it is of another model")
        if path != self._file(header.user, header.name):
            raise BadFile("it has another entry's name")
        if size != header.pages * header.page_bytes:
            raise BadFile(f"{size} bytes for {header.pages} pages of {header.page_bytes}")
        return header

    def save(self, user: str, name: str, contents: NDArray[np.uint8]) -> None:
        """Write [pages, page bytes]; when it returns, they survive a crash. UsageError."""
        pages, page_bytes = contents.shape
        data = contents.tobytes()
        header = Header(
            user=user,
            model=self.model,
            fingerprint=self.fingerprint,
            name=name,
            pages=pages,
            page_bytes=page_bytes,
            checksum=hashlib.sha256(data).hexdigest(),
        )
        path = self._file(user, name)
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            _write(unfinished, header.encoded(), data)
            unfinished.rename(path)
            _sync_folder(self.path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise _cannot(path, error) from error

    def load(self, user: str, name: str) -> NDArray[np.uint8] | None:
        """[pages, page bytes], or None, with a warning, if the file cannot be used any more."""
        path = self._file(user, name)
        try:
            self._examine(path)
            with path.open("rb") as file:
                return page_contents(read_header(file), file.read())
        except (OSError, BadFile) as error:
            logger.warning("export %r of user %s is gone: %s: %s", name, user, path, error)
            return None

    def delete(self, user: str, name: str) -> None:
        """Forget an entry, if there is one."""
        path = self._file(user, name)
        try:
            path.unlink(missing_ok=True)
            _sync_folder(self.path)
        except OSError as error:
            logger.warning("export %r of user %s cannot be deleted: %s", name, user, error)

    def _file(self, user: str, name: str) -> Path:
        key = json.dumps([user, name]).encode()
        return self.path / (hashlib.sha256(key).hexdigest() + _SUFFIX)


def _write(path: Path, *parts: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """So that a rename or removal in it survives a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot keep state in {path}: {error.strerror or error}")
