"""A growing text in front of a model: what is filled in, what of it is in KV pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from . import host
from .ahead import FAR, Ahead
from .cache import Cache
from .chat import Chat
from .generation import Generation
from .model import Model
from .samplers import PLAIN, Distribution, Multinomial, Sampler
from .stops import Stop
from .tokens import Tokens


class Context:
    """Tokens, their positions and masks, and the pages that hold the first of them.

    Filling makes no forward pass: tokens are *pending* until a step or `flush` computes them all
    in one pass.
    """

    def __init__(self, model: Model, queue: Any) -> None:
        self.model = model
        self.queue = queue
        self._tokens = Tokens()
        self._cache = Cache(model.pages, model.page_size)
        self._chat: Chat | None = None
        self._ahead: Ahead | None = None
        """What draws this context's next tokens already."""
        self._stale: list[Ahead] = []
        """What did so until something else was done: to be stopped before the next pass."""

    @classmethod
    async def create(cls, model: Model) -> Context:
        """An empty context with a command queue of its own."""
        return cls(model, await host.create_queue(model.handle))

    def __del__(self) -> None:
        self._halt()
        self.model.pages.release(self._cache.pages, self._stale)

    async def release(self) -> None:
        """Give back the pages and the queue; the context is empty and unusable afterwards."""
        self.rewind(0)
        await self._stop_stale()
        await self.model.pages.settle(self.queue)
        host.drop(self.queue)

    @property
    def tokens(self) -> list[int]:
        """All tokens, pending ones included."""
        return self._tokens.ids

    @property
    def positions(self) -> list[int]:
        """Of the tokens; they count on when pages are dropped."""
        return self._tokens.positions

    @property
    def pointers(self) -> list[int]:
        """The KV pages, in order."""
        return self._cache.pointers

    @property
    def pending(self) -> int:
        """Number of tokens that are not in the pages yet."""
        return len(self._tokens.ids) - self._cache.written

    async def text(self) -> str:
        """All tokens as text."""
        return await self.model.detokenize(self.tokens)

    # Filling

    async def fill(self, text: str) -> None:
        """Append text as it is, without a chat template."""
        self.fill_tokens(await self.model.tokenize(text))

    def fill_tokens(self, tokens: Sequence[int]) -> None:
        """Append tokens; what is hidden now stays hidden from them."""
        self._halt()
        self._tokens.append(tokens)

    async def system(self, content: str) -> None:
        """Add a system message."""
        await self._say("system", content)

    async def user(self, content: str) -> None:
        """Add a user message."""
        await self._say("user", content)

    async def assistant(self, content: str) -> None:
        """Add an assistant message, as an example or a memory of an earlier conversation."""
        await self._say("assistant", content)

    async def _say(self, role: str, content: str) -> None:
        if self._chat is None:
            self._chat = Chat(await self.model.template(), start=len(self.tokens))
        self._chat.add(role, content)

    async def _render(self, *, prompt: bool) -> None:
        """Bring the conversation into the context, at best by appending to it."""
        chat = self._chat
        if chat is None or not chat.due(prompt=prompt):
            return
        text = chat.render(prompt=prompt)
        if text.startswith(chat.text):
            await self.fill(text[len(chat.text) :])
        else:
            self.rewind(chat.start)
            await self.fill(text)
        chat.text = text

    async def generated(self, generation: Generation) -> None:
        """Note a finished generation as the assistant's turn, if this is a conversation."""
        self._halt()
        await self._stop_stale()
        if self._chat is not None:
            raw = await self.model.detokenize(generation.tokens)
            self._chat.answered(generation.text, raw)

    # Forward passes

    async def flush(self) -> None:
        """Compute everything pending. Returns when the pass is submitted, not when it is done."""
        await self._render(prompt=False)
        if self.pending:
            await self._forward(None)

    async def step(self, sampler: Sampler) -> int:
        """Compute everything pending and draw the next token, which is not filled in."""
        await self._render(prompt=True)
        result = await self._forward(sampler)
        try:
            await host.ready(await host.pass_pollable(result))
            tokens = await host.get_tokens(result)
        finally:
            host.drop(result)
        token: int = tokens[0]
        return token

    async def distribution(
        self, *, temperature: float = 1.0, top_k: int | None = None
    ) -> tuple[list[int], list[float]]:
        """Compute everything pending; the most probable next tokens and their probabilities.

        At most `top_k` of them (None: the engine's default of 32), over the full vocabulary.
        """
        await self._render(prompt=True)
        result = await self._forward(Distribution(temperature, top_k))
        try:
            await host.ready(await host.pass_pollable(result))
            distributions = await host.get_distributions(result)
        finally:
            host.drop(result)
        ids, probabilities = distributions[0]
        return list(ids), list(probabilities)

    async def _forward(self, sampler: Sampler | None) -> Any:
        """One pass over what is pending, with an output at its last token if `sampler`."""
        await self._prepare()
        return await self._submit(sampler, host.execute)

    async def _prepare(self) -> None:
        """Have something to compute, pages of its own for it, and a queue that is free."""
        self._halt()
        await self._stop_stale()
        self._need_input()
        await self._cache.prepare(self.queue, len(self.tokens))

    async def _submit(
        self, sampler: Sampler | None, submit: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Build a pass over what is pending, and do with it what `submit` does."""
        start, length = self._cache.written, len(self._tokens.ids)
        ids, positions = self._tokens.ids[start:], self._tokens.positions[start:]
        forward_pass = await host.create_pass(self.queue)
        try:
            await host.input_tokens(forward_pass, ids, positions)
            last_length = (length - 1) % self.model.page_size + 1
            await host.kv_cache(forward_pass, self._cache.pointers, last_length)
            mask = self._tokens.rows(start)
            if mask is not None:
                await host.attention_mask(forward_pass, mask)
            if sampler is not None:
                await sampler.request(forward_pass, [len(ids) - 1])
            result = await submit(forward_pass)
        finally:
            host.drop(forward_pass)
        self._cache.written = length
        return result

    async def draw(self, sampler: Sampler, most: int, stop: Stop, *, whole: bool) -> list[int]:
        """Compute everything pending, draw the next token and fill it in; up to `most` if `whole`.

        Where it can, the engine goes on drawing meanwhile: up to `most` tokens, as long as the
        last page and those to spare have room, and to one that a sequence of `stop` ends with.
        This context is as if each step were made when its token is returned.
        """
        if self._chat is not None:
            await self._render(prompt=True)
        closing = stop.closing
        if self._ahead is not None and not self._ahead.suits(sampler, closing, most):
            self._halt()
        tokens: list[int] = []
        while not tokens:
            ahead = self._ahead or await self._run_ahead(sampler, most, closing)
            if ahead is None:
                tokens = [await self.step(sampler)]
                self.fill_tokens(tokens)
                return tokens
            tokens = await ahead.take(most if whole else 1)
            if tokens:
                self._fill_drawn(tokens, ahead)
            if ahead.over:
                ahead.drop()
                self._ahead = None
                await self.model.pages.settle(self.queue)
        return tokens

    def _fill_drawn(self, tokens: list[int], ahead: Ahead) -> None:
        """As if each had been drawn by a step, and filled in."""
        self._cache.written = len(self._tokens.ids) + len(tokens) - 1
        self._tokens.append(tokens)
        if ahead.room < 0:
            self._cache.pages += ahead.claim()

    async def _run_ahead(self, sampler: Sampler, most: int, closing: Sequence[int]) -> Ahead | None:
        """Let the engine draw several tokens, if nothing but their sampler decides on them."""
        if type(sampler) not in PLAIN or type(self).step is not Context.step:
            return None
        await self._prepare()
        if not self._tokens.mask_goes_on():
            return None
        size, written = self.model.page_size, self._cache.written
        room = self._cache.slots - len(self.tokens) + 1  # the last one's slot is not needed
        further = min(most, FAR) - room
        spare = await self.model.pages.spare(self.queue, -(-further // size))
        steps = min(most, room + len(spare) * size)
        if steps < 2:
            return None

        async def decode(forward_pass: Any) -> Any:
            growth = [page.pointer for page in spare]
            return await host.decode(forward_pass, steps, closing, growth)

        self._ahead = Ahead(
            decoding=await self._submit(sampler, decode),
            sampler=sampler,
            closing=closing,
            left=steps,
            size=size,
            room=room,
            spare=spare,
            pool=self.model.pages,
        )
        self._cache.written = written  # what it computes counts when a token is taken
        return self._ahead

    def _halt(self) -> None:
        """What is drawn ahead is not what comes next."""
        if self._ahead is not None:
            self._stale.append(self._ahead)
            self._ahead = None

    async def _stop_stale(self) -> None:
        if self._stale:
            while self._stale:
                await self._stale.pop().stop()
            await self.model.pages.settle(self.queue)

    def _need_input(self) -> None:
        """A pass needs an input: with nothing pending the last token is computed again."""
        if self.pending:
            return
        if not self.tokens:
            raise ValueError("nothing is filled in: a forward pass needs a token")
        self._cache.written -= 1

    # Generating

    def stream(
        self,
        *,
        max_tokens: int = 256,
        sampler: Sampler | None = None,
        stop: Stop | None = None,
        ignore_eos: bool = False,
    ) -> Generation:
        """Generate up to `max_tokens` tokens, as an asynchronous iterator over pieces of text.

        Ends earlier at the model's end of turn, unless `ignore_eos`, and at `stop`. The sampler
        defaults to `Multinomial(1.0)`.
        """
        ends = Stop(limit=max_tokens) | (stop or Stop())
        return Generation(self, sampler or Multinomial(), ends, ignore_eos)

    async def generate(
        self,
        *,
        max_tokens: int = 256,
        sampler: Sampler | None = None,
        stop: Stop | None = None,
        ignore_eos: bool = False,
    ) -> Generation:
        """Like `stream`, run to the end."""
        return await self.stream(
            max_tokens=max_tokens, sampler=sampler, stop=stop, ignore_eos=ignore_eos
        ).finish()

    # Forking, rewinding, masks

    async def fork(self) -> Context:
        """A context that goes on from here on a queue of its own.

        All pages are shared: who is first to write to a partial last one gets a copy of it.
        """
        self._halt()
        await self._stop_stale()  # a copy waits for all that writes to the page
        child = await Context.create(self.model)
        child._tokens, child._cache = self._tokens.copy(), self._cache.fork()
        child._chat = None if self._chat is None else self._chat.copy()
        return child

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens."""
        self._halt()
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"cannot rewind {len(self.tokens)} tokens to {length}")
        self._tokens.truncate(length)
        self._cache.truncate(length)

    def mask_tokens(self, start: int, stop: int, *, hidden: bool = True) -> None:
        """Hide tokens (or show them again) from everything filled in later."""
        self._halt()
        self._tokens.mask(start, stop, hidden=hidden)

    async def drop_masked_pages(self) -> int:
        """Free the full pages whose tokens are all hidden; the number of tokens dropped.

        The tokens leave the context; the others keep their positions but move to lower slots.
        """
        self._halt()
        await self._stop_stale()
        size = self.model.page_size
        dropped = 0
        for index in reversed(range(self._cache.written // size)):
            start, stop = index * size, (index + 1) * size
            if not self._tokens.hides(start, stop):
                continue
            self._tokens.remove(start, stop)
            self._cache.remove(index)
            if self._chat is not None:
                self._chat.start -= max(0, min(size, self._chat.start - start))
            dropped += size
        await self.model.pages.settle(self.queue)
        return dropped
