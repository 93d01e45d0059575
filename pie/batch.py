"""What crosses the border to a model: flat arrays in, flat arrays out.

No per-pass objects, callbacks or tensors: the same batch can be run in a worker thread, sent to
another process or uploaded in one piece. A *row* is one input (token or embedding); rows of one
pass are consecutive. `int32` and `float32` throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]


_NO_INTS: Ints = np.zeros(0, dtype=np.int32)
_NO_FLOATS: Floats = np.zeros(0, dtype=np.float32)
"""Most of a batch's arrays are empty: making each anew was a tenth of a small step's host time."""


def ints(values: Sequence[int] = ()) -> Ints:
    """`values` as a flat int32 array."""
    return np.array(values, dtype=np.int32) if len(values) else _NO_INTS


def floats(values: Sequence[float] = ()) -> Floats:
    """`values` as a flat float32 array."""
    return np.array(values, dtype=np.float32) if len(values) else _NO_FLOATS


def _no_ints() -> Any:
    return attrs.field(factory=ints, eq=False)


def _no_floats() -> Any:
    return attrs.field(factory=floats, eq=False)


@attrs.frozen(eq=False, kw_only=True)
class Batch:
    """One step of a model.

    Before the rows run, pages are cleared and then copied. All K and V of a layer are written
    before its attention, so a pass may read what an earlier pass of the same batch writes.
    """

    # Inputs, one entry per row.
    tokens: Ints
    """[rows] token id, or -1 where an embedding slot is the input."""
    positions: Ints
    """[rows] rotary position; need not be the slot and may repeat."""

    # Passes and their KV pages.
    row_starts: Ints
    """[passes + 1] first row of each pass."""
    pages: Ints
    """Physical page numbers of all passes, each in logical order."""
    page_starts: Ints
    """[passes + 1] first entry of each pass in `pages`."""
    lengths: Ints
    """[passes] KV length after this step. Row i of a pass with n rows writes slot
    `length - n + i` of its pages and sees slots 0 .. `length - n + i`."""

    # Embedding slots as inputs.
    embedding_rows: Ints = _no_ints()
    embedding_slots: Ints = _no_ints()

    # Rows whose mask hides something; runs alternate attend / hide and cover the visible slots.
    masked_rows: Ints = _no_ints()
    mask_runs: Ints = _no_ints()
    mask_starts: Ints = attrs.field(factory=lambda: ints([0]), eq=False)
    """[masked rows + 1] first run of each masked row in `mask_runs`."""

    # Adapters: LoRA on q, k and v of all rows of a pass. Empty arrays: no pass has one.
    adapters: Ints = _no_ints()
    """[passes] adapter slot, or -1."""
    noisy: NDArray[np.bool_] = attrs.field(factory=lambda: np.zeros(0, dtype=np.bool_), eq=False)
    """[passes] whether the adapter is perturbed by the noise of the pass's seed (`zo`)."""
    noise_seeds: NDArray[np.int64] = attrs.field(
        factory=lambda: np.zeros(0, dtype=np.int64), eq=False
    )
    """[passes]"""

    # Page and slot maintenance, done first, in this order.
    cleared_pages: Ints = _no_ints()
    cleared_embeddings: Ints = _no_ints()
    copy_sources: Ints = _no_ints()
    copy_targets: Ints = _no_ints()

    # Final hidden states to keep in embedding slots.
    stored_rows: Ints = _no_ints()
    stored_slots: Ints = _no_ints()

    # Sampled outputs (contract 6): temperature 0 is argmax; top_k 0, top_p 1, min_p 0 are off.
    sampled_rows: Ints = _no_ints()
    temperature: Floats = _no_floats()
    top_k: Ints = _no_ints()
    top_p: Floats = _no_floats()
    min_p: Floats = _no_floats()
    uniform: Floats = _no_floats()
    """[sampled] the slot's random number in [0, 1)."""

    # Distributions: the `ranked_k` most probable tokens of a row.
    ranked_rows: Ints = _no_ints()
    ranked_temperature: Floats = _no_floats()
    ranked_k: Ints = _no_ints()

    @property
    def passes(self) -> int:
        return len(self.lengths)

    @property
    def rows(self) -> int:
        return len(self.tokens)


@attrs.frozen(eq=False, kw_only=True)
class BatchResult:
    """What a model answers to a `Batch`, in the order of its outputs."""

    tokens: Ints = _no_ints()
    """[sampled]"""
    sampled_finite: NDArray[np.bool_] = attrs.field(
        factory=lambda: np.zeros(0, dtype=np.bool_), eq=False
    )
    """[sampled] False where the logits were not finite: the token means nothing."""
    ranked_ids: Ints = _no_ints()
    ranked_probabilities: Floats = _no_floats()
    ranked_starts: Ints = attrs.field(factory=lambda: ints([0]), eq=False)
    """[ranked + 1] first entry of each distribution; it may have fewer entries than asked."""
    ranked_finite: NDArray[np.bool_] = attrs.field(
        factory=lambda: np.zeros(0, dtype=np.bool_), eq=False
    )
    """[ranked] False where the logits were not finite."""


@attrs.frozen(eq=False)
class UploadAdapter:
    """Put a LoRA adapter (safetensors bytes that `AdapterSupport.check` accepts) into a slot."""

    slot: int
    data: bytes


@attrs.frozen(eq=False)
class DownloadAdapter:
    """The adapter in a slot as safetensors bytes; without noise."""

    slot: int


@attrs.frozen(eq=False)
class InitializeAdapter:
    """Start an evolution strategy in a slot (contract X8, `inferlet:zo/evolve`)."""

    slot: int
    rank: int
    alpha: float
    population_size: int
    mu_fraction: float
    initial_sigma: float


@attrs.frozen(eq=False)
class UpdateAdapter:
    """One step of the evolution strategy: the scores that the noise of these seeds got."""

    slot: int
    scores: tuple[float, ...]
    seeds: tuple[int, ...]
    max_sigma: float


@attrs.frozen(eq=False)
class ClearAdapter:
    """Make a slot hold nothing, for its next owner (contract R3)."""

    slot: int


AdapterCommand: TypeAlias = (
    ClearAdapter | UploadAdapter | DownloadAdapter | InitializeAdapter | UpdateAdapter
)


class AdapterSupport(Protocol):
    """What a model can do with adapters; its methods may be called from any thread."""

    @property
    def slots(self) -> int: ...

    @property
    def max_rank(self) -> int: ...

    def check(self, data: bytes, /) -> None:
        """Raise GuestError, naming what is wrong, unless `data` is an adapter for this model."""
        ...


class Tokenizer(Protocol):
    """Text to token ids and back (contract X2). Called from worker threads, too."""

    def encode(self, text: str, /) -> list[int]:
        """Token ids of `text`; special tokens written in it are recognised."""
        ...

    def encode_plain(self, text: str, /) -> list[int]:
        """Token ids of `text`; what looks like a special token stays text."""
        ...

    def decode(self, tokens: Sequence[int], /) -> str:
        """Text of `tokens`, specials as their text, broken UTF-8 as U+FFFD.

        Raises GuestError for an unknown id.
        """
        ...

    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        """Ids and stored forms of all tokens but the special ones."""
        ...

    def special_tokens(self) -> tuple[list[int], list[bytes]]: ...

    def split_regex(self) -> str: ...


@attrs.frozen(kw_only=True)
class ModelInfo:
    """What everybody may know of a loaded model."""

    name: str
    tokenizer: Tokenizer = attrs.field(eq=False, repr=False)
    vocabulary: int
    """Rows of the embedding matrix: token ids are below it."""
    context_length: int
    page_size: int
    pages: int
    embedding_slots: int
    fingerprint: Callable[[], str] = attrs.field(eq=False, repr=False)
    """Names what makes contents of KV pages valid: weights, settings, page layout. It may read
    the model's files, so it blocks, and it raises ModelError."""
    adapters: AdapterSupport | None = attrs.field(default=None, eq=False, repr=False)
    """None: the model takes no adapters."""
    multi_steps: int = 1
    """Most steps that its runner makes in one call (`pie.multistep`); 1: it makes single ones."""
    traits: tuple[str, ...] = ("input_text", "tokenize", "output_text", "allocate", "forward")
    description: str = ""
    prompt_template: str = ""
    stop_tokens: tuple[str, ...] = ()


class ModelRunner(Protocol):
    """The only door to a model's arithmetic. One batch at a time, on any one thread."""

    @property
    def info(self) -> ModelInfo: ...

    def run(self, batch: Batch) -> BatchResult:
        """Run one step; blocks for its duration. Raises PassFailed if the batch is lost."""
        ...

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        """The contents of KV pages as opaque bytes: [pages, page bytes], a copy."""
        ...

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        """Put back, bit for bit, what `read_pages` of this model gave."""
        ...

    def read_embeddings(self, slots: Ints, /) -> Floats:
        """The vectors in embedding slots: [slots, hidden], a copy."""
        ...

    def adapt(self, command: AdapterCommand, /) -> bytes:
        """Carry out a command on an adapter slot; bytes only of a download.

        A slot that holds nothing: PassFailed for a download or update; passes use the bare model.
        """
        ...

    def close(self) -> None: ...
