"""Models and their tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Template

from . import host
from .chat import compile_template
from .errors import Failure
from .pages import PagePool
from .stops import Stop


@dataclass(eq=False)
class Model:
    """A loaded model with the facts a context needs, read once."""

    handle: Any
    name: str
    page_size: int
    """Tokens per KV page."""
    tokenizer: Any
    pages: PagePool = field(default_factory=PagePool)
    _template: Template | None = None
    _end: Stop | None = None

    async def tokenize(self, text: str) -> list[int]:
        """Token ids; special tokens in the text are recognised (contract X2)."""
        return list(await host.tokenize(self.tokenizer, text))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Text; an incomplete UTF-8 sequence yields U+FFFD."""
        text: str = await host.detokenize(self.tokenizer, list(tokens))
        return text

    async def traits(self) -> list[str]:
        """What the model can do."""
        return list(await host.get_traits(self.handle))

    async def template(self) -> Template:
        """Its chat template; fails if it has none."""
        if self._template is None:
            source = await host.get_prompt_template(self.handle)
            if not source:
                raise Failure(f"model {self.name!r} has no chat template; fill in plain text")
            self._template = compile_template(source)
        return self._template

    async def end_of_turn(self) -> Stop:
        """Stops at the model's own end-of-turn texts."""
        if self._end is None:
            texts = await host.get_stop_tokens(self.handle)
            sequences = [await self.tokenize(text) for text in texts if text]
            self._end = Stop(sequences=tuple(tuple(each) for each in sequences if each))
        return self._end


async def get_model(name: str | None = None) -> Model:
    """The model of that name, or the engine's first; fails if there is none."""
    if name is None:
        names = await host.get_all_models()
        if not names:
            raise Failure("the engine has no model")
        name = names[0]
    handle = await host.get_model(name)
    if handle is None:
        known = ", ".join(await host.get_all_models()) or "none"
        raise Failure(f"no model {name!r}; loaded: {known}")
    return Model(
        handle=handle,
        name=name,
        page_size=await host.get_kv_page_size(handle),
        tokenizer=await host.get_tokenizer(handle),
    )


async def get_all_models() -> list[str]:
    """Names of the loaded models, in the order of the engine's configuration."""
    return list(await host.get_all_models())
