"""Conversations, rendered by the model's own Jinja template."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from jinja2 import Environment, Template, TemplateError
from jinja2.ext import LoopControlExtension

from .errors import Failure


def compile_template(source: str) -> Template:
    """A chat template, in the environment that Hugging Face's `apply_chat_template` makes."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    environment.filters["tojson"] = _to_json
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise Failure(f"the model's chat template is not valid Jinja: {error}") from error


def _refuse(message: str) -> None:
    raise Failure(f"the model's chat template refuses the conversation: {message}")


def _now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=False, indent=indent)


@dataclass(eq=False)
class Chat:
    """The messages of a context, and how much of their text is already in it."""

    template: Template
    messages: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    """What the context holds of the conversation."""
    start: int = 0
    """Number of tokens in the context before the conversation."""
    changed: bool = False
    """Whether there are messages that are not in the context yet."""
    prompted: bool = False
    """Whether the context ends in an open turn of the assistant."""

    def add(self, role: str, content: str) -> None:
        """A message of `system`, `user` or `assistant`."""
        self.messages.append({"role": role, "content": content})
        self.changed, self.prompted = True, False

    def answered(self, content: str, text: str) -> None:
        """The model has generated a turn: `content`, in the context as `text`."""
        self.messages.append({"role": "assistant", "content": content})
        self.text += text

    def copy(self) -> Chat:
        return replace(self, messages=list(self.messages))

    def due(self, *, prompt: bool) -> bool:
        """Whether something must be rendered: messages, or the prompt for an answer."""
        return self.changed or (prompt and bool(self.messages) and not self.prompted)

    def render(self, *, prompt: bool) -> str:
        """All messages as one text, with the opening of the assistant's turn if `prompt`."""
        try:
            text = self.template.render(
                messages=self.messages,
                add_generation_prompt=prompt,
                tools=None,
                documents=None,
                bos_token="",
                eos_token="",
                begin_of_sequence=True,
            )
        except TemplateError as error:
            raise Failure(f"the model's chat template failed: {error}") from error
        self.changed, self.prompted = False, prompt
        return text
