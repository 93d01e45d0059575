"""What became of the weights that have no packed form of their own."""

from __future__ import annotations

import logging

import attrs

from pie.kernels.cpu.layout import Kind

logger = logging.getLogger(__name__)

_NAMES = {
    Kind.Q4: "4 bits",
    Kind.Q8: "8 bits",
    Kind.Q8M: "8 bits with minima",
    Kind.BF16: "bfloat16",
}


@attrs.define
class Conversions:
    """Counts tensors by the format of the file and the kind they were packed as."""

    _seen: dict[tuple[str, Kind], tuple[int, float]] = attrs.field(factory=dict)
    """Tensors, and the largest error, of what was not exact."""

    def note(self, format: str, kind: Kind, error: float) -> None:
        """A tensor was packed; `error` as `Coded.error`."""
        if error > 0:
            count, worst = self._seen.get((format, kind), (0, 0.0))
            self._seen[format, kind] = count + 1, max(worst, error)

    def report(self, source: str) -> None:
        """One line in the log for each pair, and start anew."""
        for (format, kind), (count, worst) in sorted(self._seen.items()):
            logger.info(
                "%s: %d tensor%s %s -> %s, off by at most %.2g %% of the largest in a group of 32",
                source,
                count,
                "" if count == 1 else "s",
                format,
                _NAMES[kind],
                100 * worst,
            )
        self._seen.clear()
