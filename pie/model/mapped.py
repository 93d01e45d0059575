"""Files that are read by mapping them into memory."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError

_AROUND = 2 << 20
"""Linux maps what it has in memory around a page that is touched: within a huge page at most."""


@attrs.frozen(eq=False)
class MappedFile:
    """A file's bytes, read by the system as they are touched."""

    path: Path
    data: mmap.mmap = attrs.field(repr=False)
    address: int = attrs.field(repr=False)

    @staticmethod
    def open(path: Path) -> MappedFile:
        """Map `path`; ModelError if it cannot be read or is empty."""
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError:
            raise ModelError(f"{path}: the file is empty") from None
        return MappedFile(path, data, _address(np.frombuffer(data, np.uint8, 1)))

    def bytes(self, start: int, count: int) -> NDArray[np.uint8]:
        """A read-only view of `count` bytes; whoever asks has checked that they exist."""
        return np.frombuffer(self.data, np.uint8, count, start)

    def forget(self, view: NDArray[Any]) -> None:
        """Give back the memory behind a contiguous view; touching it again reads it again.

        What came along with its ends goes, too: neighbours that are still needed pay a fault.
        """
        if not hasattr(mmap, "MADV_DONTNEED") or not view.nbytes:
            return
        first, last = _address(view) // _AROUND, (_address(view) + view.nbytes - 1) // _AROUND
        start = max(first * _AROUND - self.address, 0)
        end = min((last + 1) * _AROUND - self.address, len(self.data))
        self.data.madvise(mmap.MADV_DONTNEED, start, end - start)


def _address(view: NDArray[Any]) -> int:
    return int(view.__array_interface__["data"][0])
