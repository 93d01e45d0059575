"""What a failed pass means for others: slots that hold nothing, and passes that read them (F7).

A pure core.
"""

from __future__ import annotations

from collections.abc import Iterable

from pie.errors import PageLost, PassFailed, PieError
from pie.probes import sometimes

from .decodings import PendingDecoding
from .passes import Pending, PendingPass


def spoil(failed: PendingPass, error: PieError, page_size: int) -> None:
    """Note that the slots `failed` should have written hold nothing (F7)."""
    for _, pointer in failed.work.stored:
        failed.embeddings[pointer].spoiled = 0, 1, error
    copied = [target for _, target in failed.copies]
    for index, page in enumerate(failed.pages):
        _, first, end = failed.spans(page, index, page_size)
        if page in copied:
            first, end = 0, page_size
        if first >= end:
            continue
        if page.spoiled is not None:  # what an earlier failure left is still not written
            before, until, why = page.spoiled
            error_of_first = why if before < first else error
            page.spoiled = min(first, before), max(end, until), error_of_first
        else:
            page.spoiled = first, end, error


def check_spoiled(new: PendingPass, notable: Iterable[int], page_size: int) -> PieError | None:
    """Why `new` reads slots that hold nothing, or None; what it writes itself is good again.

    `notable` are places in its page list, with those of all spoiled pages.
    """
    if new.embeddings and (lost := _check_slots(new)) is not None:
        return lost
    for source, target in new.copies:
        target.spoiled = source.spoiled
    for index in notable:
        page = new.pages[index]
        if page.spoiled is None:
            continue
        first, end, error = page.spoiled
        reads, own_first, own_end = new.spans(page, index, page_size)
        if first < min(reads, own_first if own_first < own_end else reads):
            sometimes("a pass reads spoiled slots")
            return error
        sometimes("spoiled slots are passed by or written again")
        left = max(first, own_end)
        page.spoiled = (left, end, error) if left < end else None
    return None


def _check_slots(new: PendingPass) -> PieError | None:
    """The same of embedding slots."""
    taken = [new.embeddings[-1 - value] for value in new.work.inputs if value < 0]
    for slot in taken:
        if slot.spoiled is not None:
            sometimes("a pass takes a vector that was never stored")
            return slot.spoiled[2]
    for _, pointer in new.work.stored:
        new.embeddings[pointer].spoiled = None
    return None


def fail_dependents(work: Pending, needing: list[Pending]) -> list[Pending]:
    """Give those of `needing` an error; the ones that are over with it, not being in a step."""
    over = []
    for later in needing:
        if later.instance == work.instance and later.error is None:
            later.error = dependent_failure(work.error)
            if isinstance(later, PendingDecoding):
                later.excuse()
            if later.running:
                sometimes("a pass fails beside one in the same step that needs it")
            else:
                over.append(later)
    return over


def dependent_failure(error: PieError | None) -> PassFailed:
    """What a pass is told that reads the results of a failed one; the first reason once."""
    return (
        error
        if isinstance(error, _ReadsFailed | PageLost)
        else _ReadsFailed(f"a pass whose results it reads failed: {error}")
    )


class _ReadsFailed(PassFailed):
    """A pass failed because of another one."""
