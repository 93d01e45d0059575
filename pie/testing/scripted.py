"""A model that follows a script, so that programs get answers that mean something."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints
from pie.errors import PassFailed

from .letters import EOS, LetterTokenizer, hidden_slots, letter_info, outputs_of
from .script import Script

Tokens = NDArray[np.int32]


class ScriptedModel:
    """A `ModelRunner` that answers what a row sees as its script says (see `pie.testing.script`).

    KV pages keep the tokens written to them, and beside each what the model said was next. So a
    row knows, of the tokens it sees (through forks, shared prefixes and masks), which are its own
    reply: those at the end that are what it had said. What is before them is the prompt, which
    decides the reply, and after the reply comes the end of text. What was put into its mouth is
    part of the prompt.

    The next token of the script has probability 1/2, and is sampled whatever the settings. There
    are no embedding slots and no adapters.
    """

    def __init__(
        self,
        script: str,
        name: str = "scripted",
        *,
        pages: int = 4096,
        page_size: int = 16,
        context_length: int = 8192,
    ) -> None:
        """UsageError if `script` is wrong."""
        self._script = Script.parse(script)
        self.info = letter_info(
            name,
            pages=pages,
            page_size=page_size,
            context_length=context_length,
            embedding_slots=0,
            description="follows a script",
            fingerprint=lambda: f"scripted, pages of {page_size}",
        )
        # A token or what was said, plus one; 0 is nothing. [tokens / said, pages, page size]
        self._kv = np.zeros((2, pages, page_size), dtype=np.int32)
        self._reply = lru_cache(maxsize=4096)(self._reply_to)

    def run(self, batch: Batch) -> BatchResult:
        self._kv[:, batch.cleared_pages] = 0
        self._kv[:, batch.copy_targets] = self._kv[:, batch.copy_sources]
        slots = self._slots(batch)
        hidden = hidden_slots(batch)
        tokens, said = self._kv.reshape(2, -1)
        for number, owned in enumerate(slots):
            first, end = batch.row_starts[number : number + 2].tolist()
            tokens[owned[len(owned) - (end - first) :]] = batch.tokens[first:end] + 1
            said[owned[len(owned) - (end - first) :]] = 0
        best = np.zeros(batch.rows, dtype=np.int64)
        owner = np.repeat(np.arange(batch.passes), np.diff(batch.row_starts))
        # In order: a row goes on from what an earlier one of its pass has said.
        for row in np.union1d(batch.sampled_rows, batch.ranked_rows).tolist():
            owned = slots[owner[row]]
            seen = owned[: len(owned) - (batch.row_starts[owner[row] + 1] - row) + 1]
            if row in hidden:
                seen = np.delete(seen, hidden[row])
            best[row] = self._next(tokens[seen], said[seen])
            said[owned[len(owned) - (batch.row_starts[owner[row] + 1] - row)]] = best[row] + 1
        return outputs_of(batch, best, fixed=True)

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        both = np.ascontiguousarray(self._kv[:, pages].swapaxes(0, 1))
        return both.reshape(len(pages), 2 * self.info.page_size).view(np.uint8)

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        both = np.ascontiguousarray(contents).view(np.int32)
        self._kv[:, pages] = both.reshape(len(pages), 2, self.info.page_size).swapaxes(0, 1)

    def read_embeddings(self, slots: Ints, /) -> Floats:
        raise PassFailed("a scripted model has no embedding slots")

    def adapt(self, command: AdapterCommand, /) -> bytes:
        raise PassFailed("a scripted model takes no adapters")

    def close(self) -> None:
        """Nothing to release."""

    def _slots(self, batch: Batch) -> list[NDArray[np.int64]]:
        """For each pass, the physical slots of its length."""
        size, slots = self.info.page_size, []
        for page, length in zip(batch.page_starts.tolist(), batch.lengths.tolist(), strict=False):
            logical = np.arange(length)
            slots.append(
                batch.pages[page + logical // size].astype(np.int64) * size + logical % size
            )
        return slots

    def _next(self, tokens: Tokens, said: Tokens) -> int:
        """The next token after `tokens`, where `said` is what the model had said at each."""
        written = tokens > 0
        tokens, said = tokens[written] - 1, said[written] - 1
        other = np.flatnonzero(tokens[1:] != said[:-1])
        prompt = 1 + int(other[-1]) + 1 if len(other) else 1
        reply = self._reply(tokens[:prompt].tobytes())
        at = len(tokens) - prompt
        return reply[at] if at < len(reply) else EOS

    def _reply_to(self, prompt: bytes) -> bytes:
        text = LetterTokenizer().decode(np.frombuffer(prompt, dtype=np.int32).tolist())
        return self._script.answer(text).encode()
