"""A host that follows a script: what the guest library asks for is recorded, not computed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from inferlet.native import HOST

T = TypeVar("T")

SPECIALS = ("<|start|>", "<|end|>")
START, END = 256, 257
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant: {% endif %}"
)


@attrs.define
class Pass:
    """What one forward pass was given."""

    tokens: list[int] = attrs.field(factory=list)
    positions: list[int] = attrs.field(factory=list)
    pages: list[int] = attrs.field(factory=list)
    last_length: int = 0
    mask: list[list[int]] | None = None
    outputs: list[tuple[Any, ...]] = attrs.field(factory=list)


@attrs.define
class Decoding:
    """Passes that follow each other."""

    upcoming: Pass
    left: int
    stops: list[int]
    over: bool = False

    def draw(self, token: int) -> None:
        before = self.upcoming
        self.left -= 1
        self.over = not self.left or token in self.stops
        mask = None
        if before.mask is not None:
            *runs, last = before.mask[-1]
            mask = [[*runs, last + 1] if len(runs) % 2 == 0 else [*runs, last, 1]]
        outputs = [(kind, [0], *rest) for kind, _, *rest in before.outputs]
        self.upcoming = Pass(
            [token],
            [before.positions[-1] + 1],
            before.pages,
            before.last_length + 1,
            mask,
            outputs,
        )


@attrs.define(eq=False)
class Handle:
    """A resource: `drop` must get each once."""

    kind: str
    of: Any = None


@attrs.define(eq=False)
class ScriptedHost:
    """Tokens are bytes, and two special ones; sampled tokens come from `script`, in turn."""

    script: Iterable[int] = ()
    template: str = TEMPLATE
    page_size: int = 4
    distributions: Iterable[tuple[list[int], list[float]]] = ()
    arguments: list[str] = attrs.field(factory=list)
    calls: list[str] = attrs.field(factory=list)
    passes: list[Pass] = attrs.field(factory=list)
    pages: set[int] = attrs.field(factory=set)
    """Pages the guest holds."""
    shared: list[tuple[int, int]] = attrs.field(factory=list)
    """Pages, and what they were copied to."""
    live: list[Handle] = attrs.field(factory=list)
    returned: str | None = None
    written: list[tuple[str, bytes]] = attrs.field(factory=list)
    inbox: list[str] = attrs.field(factory=list)
    """What the client, and every topic, will say."""
    sent: list[Any] = attrs.field(factory=list)
    pairs: dict[str, str] = attrs.field(factory=dict)
    _numbers: int = 0
    _tokens: Iterator[int] = attrs.field(init=False)
    _distributions: Iterator[tuple[list[int], list[float]]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens, self._distributions = iter(self.script), iter(self.distributions)

    async def call(self, interface: str, function: str, /, *arguments: Any) -> Any:
        self.calls.append(function)
        name = function.partition("]")[2] or function
        method: Callable[..., Any] = getattr(self, "_" + name.replace("-", "_").replace(".", "__"))
        return method(*arguments)

    async def poll(self, pollables: Sequence[Any], /) -> list[int]:
        self.calls.append("poll")
        assert all(each in self.live and each.kind == "pollable" for each in pollables)
        return list(range(len(pollables)))

    def drop(self, handle: Any, /) -> None:
        assert handle in self.live, f"{handle} is dropped twice"
        children = [each for each in self.live if each.kind == "pollable" and each.of is handle]
        assert not children, "a pollable outlives what it came from"
        self.live.remove(handle)

    async def write(self, stream: str, data: bytes, /) -> None:
        self.written.append((stream, data))

    def watch(self, strand: Coroutine[Any, Any, T], /) -> Coroutine[Any, Any, T]:
        return strand

    def _new(self, kind: str, of: Any = None) -> Handle:
        self.live.append(Handle(kind, of))
        return self.live[-1]

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        while text:
            special = next((each for each in SPECIALS if text.startswith(each)), None)
            tokens += [SPECIALS.index(special) + START] if special else text[0].encode()
            text = text[len(special or text[0]) :]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        parts = (SPECIALS[t - START].encode() if t >= START else bytes([t]) for t in tokens)
        return b"".join(parts).decode(errors="replace")

    # Host functions, by their names

    def _get_arguments(self) -> list[str]:
        return self.arguments

    def _set_return(self, text: str) -> None:
        self.returned = text

    def _get_all_models(self) -> list[str]:
        return ["first", "second"]

    def _get_model(self, name: str) -> Handle | None:
        return self._new("model", name) if name in self._get_all_models() else None

    def _model__get_kv_page_size(self, _: Handle) -> int:
        return self.page_size

    def _model__get_prompt_template(self, _: Handle) -> str:
        return self.template

    def _model__get_stop_tokens(self, _: Handle) -> list[str]:
        return ["<|end|>"]

    def _model__create_queue(self, model: Handle) -> Handle:
        return self._new("queue", model)

    def _get_tokenizer(self, model: Handle) -> Handle:
        return self._new("tokenizer", model)

    def _tokenizer__tokenize(self, _: Handle, text: str) -> list[int]:
        return self.encode(text)

    def _tokenizer__detokenize(self, _: Handle, tokens: list[int]) -> str:
        return self.decode(tokens)

    def _allocate_resources(self, queue: Handle, kind: int, count: int) -> list[int]:
        assert (queue in self.live, kind) == (True, 0)
        new = [page for page in range(1000) if page not in self.pages][:count]
        self.pages.update(new)
        return new

    def _share_pages(self, queue: Handle, pointers: list[int]) -> list[int]:
        """Pointers of pages that are copied at once."""
        assert self.pages.issuperset(pointers), "a page that is not held"
        new = self._allocate_resources(queue, 0, len(pointers))
        self.shared += zip(pointers, new, strict=True)
        return new

    def _try_allocate(self, queue: Handle, kind: int, count: int) -> list[int]:
        assert (queue in self.live, kind, count > 0) == (True, 0, True)
        return []  # nothing is spare

    def _deallocate_resources(self, queue: Handle, kind: int, pointers: list[int]) -> None:
        assert (queue in self.live, kind) == (True, 0)
        assert self.pages.issuperset(pointers), "a page is freed twice"
        self.pages.difference_update(pointers)

    def _create_forward_pass(self, queue: Handle) -> Handle:
        assert queue in self.live
        return self._new("forward-pass", Pass())

    def _input_tokens(self, it: Handle, tokens: list[int], positions: list[int]) -> None:
        assert len(tokens) == len(positions)
        it.of.tokens, it.of.positions = list(tokens), list(positions)

    def _kv_cache(self, it: Handle, pages: list[int], last_length: int) -> None:
        assert self.pages.issuperset(pages), "a page that is not held"
        it.of.pages, it.of.last_length = list(pages), last_length

    def _attention_mask(self, it: Handle, mask: list[list[int]]) -> None:
        it.of.mask = mask

    def _output_tokens(self, it: Handle, *request: Any) -> None:
        it.of.outputs.append(("tokens", *request))

    def _output_tokens_top_k(self, it: Handle, *request: Any) -> None:
        it.of.outputs.append(("top-k", *request))

    def _output_tokens_top_p(self, it: Handle, *request: Any) -> None:
        it.of.outputs.append(("top-p", *request))

    def _output_tokens_min_p(self, it: Handle, *request: Any) -> None:
        it.of.outputs.append(("min-p", *request))

    def _output_tokens_top_k_top_p(self, it: Handle, *request: Any) -> None:
        it.of.outputs.append(("top-k-top-p", *request))

    def _output_distributions(self, it: Handle, *request: Any) -> None:
        it.of.outputs.append(("distributions", *request))

    def _decode(self, it: Handle, steps: int, stops: list[int], growth: list[int]) -> Handle:
        first: Pass = it.of
        room = len(first.pages) * self.page_size
        length = room - self.page_size + first.last_length
        assert not growth
        assert length + steps - 1 <= room, "contract X10"
        return self._new("decoding", Decoding(first, steps, stops))

    def _decoding__pollable(self, decoding: Handle) -> Handle:
        return self._new("pollable", decoding)

    def _decoding__ended(self, decoding: Handle) -> Handle:
        return self._new("pollable", decoding)

    def _decoding__get(self, handle: Handle, limit: int) -> tuple[list[int], bool]:
        """As few as possible at a time, but for who wants them all."""
        decoding: Decoding = handle.of
        found: list[int] = []
        while not decoding.over and len(found) < limit:
            self.passes.append(decoding.upcoming)
            found.append(next(self._tokens))
            decoding.draw(found[-1])
        return found, decoding.over

    def _decoding__next(self, decoding: Handle, limit: int) -> list[int]:
        return self._decoding__get(decoding, limit)[0]

    def _decoding__cancel(self, decoding: Handle) -> None:
        decoding.of.over = True

    def _forward_pass__execute(self, it: Handle) -> Handle | None:
        done: Pass = it.of
        length = (len(done.pages) - 1) * self.page_size + done.last_length
        assert 1 <= done.last_length <= self.page_size
        assert length >= len(done.tokens) >= 1, "contract K1"
        self.passes.append(done)
        return self._new("result", done) if done.outputs else None

    def _forward_pass_result__pollable(self, result: Handle) -> Handle:
        return self._new("pollable", result)

    def _forward_pass_result__get_tokens(self, _: Handle) -> list[int]:
        return [next(self._tokens)]

    def _forward_pass_result__get_distributions(
        self, _: Handle
    ) -> list[tuple[list[int], list[float]]]:
        return [next(self._distributions)]

    def _send(self, message: str) -> None:
        self.sent.append(message)

    def _blob(self, data: bytes) -> Handle:
        return self._new("blob", data)

    def _send_blob(self, blob: Handle) -> None:
        self.live.remove(blob)
        self.sent.append(blob.of)

    def _blob__size(self, blob: Handle) -> int:
        return len(blob.of)

    def _blob__read(self, blob: Handle, offset: int, count: int) -> bytes:
        data: bytes = blob.of[offset : offset + count]
        return data

    def _receive(self) -> Handle:
        return self._new("receive-result")

    def _receive_result__pollable(self, result: Handle) -> Handle:
        return self._new("pollable", result)

    def _receive_result__get(self, _: Handle) -> str:
        return self.inbox.pop(0)

    def _receive_blob(self) -> Handle:
        return self._new("blob-result")

    def _blob_result__pollable(self, result: Handle) -> Handle:
        return self._new("pollable", result)

    def _blob_result__get(self, _: Handle) -> Handle:
        return self._new("blob", self.inbox.pop(0).encode())

    def _subscribe(self, topic: str) -> Handle:
        return self._new("subscription", topic)

    def _subscription__pollable(self, subscription: Handle) -> Handle:
        return self._new("pollable", subscription)

    def _subscription__get(self, _: Handle) -> str | None:
        return self.inbox.pop(0) or None

    def _subscription__unsubscribe(self, subscription: Handle) -> None:
        assert subscription in self.live

    def _broadcast(self, topic: str, message: str) -> None:
        self.sent.append((topic, message))

    def _store_get(self, key: str) -> str | None:
        return self.pairs.get(key)

    def _store_set(self, key: str, value: str) -> None:
        self.pairs[key] = value

    def _store_delete(self, key: str) -> None:
        self.pairs.pop(key, None)

    def _store_exists(self, key: str) -> bool:
        return key in self.pairs

    def _store_list_keys(self) -> list[str]:
        return list(self.pairs)


@contextmanager
def hosted(host: ScriptedHost) -> Iterator[ScriptedHost]:
    """Let the guest library of this task talk to `host`."""
    token = HOST.set(host)
    try:
        yield host
    finally:
        HOST.reset(token)
