"""The tokens of a context, their positions, and what is hidden from each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .masks import Hidden, covers, hide, remove, rows, show


@dataclass(eq=False)
class Tokens:
    """Token i is in slot i of the pages; positions count on when tokens before it are removed."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    _masks: list[Hidden] = field(default_factory=list)
    _hidden: Hidden = ()
    """From those to come."""

    def append(self, ids: Sequence[int]) -> None:
        """What is hidden now stays hidden from them."""
        position = self.positions[-1] + 1 if self.positions else 0
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self._masks += [self._hidden] * len(ids)

    def copy(self) -> Tokens:
        return Tokens(list(self.ids), list(self.positions), list(self._masks), self._hidden)

    def truncate(self, length: int) -> None:
        """Keep the first `length`."""
        self._delete(length, len(self.ids))
        self._hidden = show(self._hidden, length, 1 << 32)

    def remove(self, start: int, stop: int) -> None:
        """Those from `start` to before `stop` leave; later ones move to lower slots."""
        self._delete(start, stop)
        moved = {mask: remove(mask, start, stop) for mask in {*self._masks, self._hidden}}
        self._masks = [moved[mask] for mask in self._masks]
        self._hidden = moved[self._hidden]

    def _delete(self, start: int, stop: int) -> None:
        for values in (self.ids, self.positions, self._masks):
            del values[start:stop]

    def mask(self, start: int, stop: int, *, hidden: bool) -> None:
        """Hide slots from everything appended later, or show them again."""
        self._hidden = (hide if hidden else show)(self._hidden, start, stop)

    def hides(self, start: int, stop: int) -> bool:
        """Whether all slots from `start` to before `stop` are hidden now."""
        return covers(self._hidden, start, stop)

    def rows(self, start: int) -> list[list[int]] | None:
        """The mask rows of those from `start` on, or None if all are plainly causal."""
        return rows(self._masks[start:], start + 1)

    def mask_goes_on(self) -> bool:
        """Whether the next tokens see what the last one does, and each other."""
        hidden = self._hidden
        return self._masks[-1] == hidden and not (hidden and hidden[-1][1] > len(self.ids))
