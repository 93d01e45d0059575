r"""The language of `ScriptedModel`: what a model answers to what it is told.

    # A rule a line: a regular expression, an arrow, the reply.
    weather in (?P<city>\w+)  =>  CALL weather {city}
    RESULT (.+)               =>  It is {1} there.
    => I do not know.

The first rule that has a match in the last message answers, with its last match; the line without a
pattern answers everything else. A match has to *end* in the last message and may begin before it:
`(?s)in (\w+).*RESULT (.+) => {2} in {1}` looks back to the question. A message is what stands
between the template's `<|im_start|>` and `<|im_end|>`, its role first; a prompt without a template
is one message.

In a reply `{name}` and `{1}` are captures of its pattern (empty if their group took no part), `\n`
is a new line, and `\{` and `\\` are a brace and a backslash. Braces around anything but a word,
as in JSON, are themselves.
"""

from __future__ import annotations

import re

import attrs

from pie.errors import UsageError

_CLOSING = re.compile(r"(<\|im_end\|>\n)?(<\|im_start\|>assistant\n)?\Z")
_OPENING = "<|im_start|>"
_PART = re.compile(r"\\([n{\\])|\{(\w+)\}")
_ESCAPES = {"n": "\n", "{": "{", "\\": "\\"}


@attrs.frozen
class Rule:
    """One line of a script."""

    pattern: re.Pattern[str]
    reply: str

    def answer(self, text: str, last: int) -> str | None:
        """The reply to `text` whose last message begins at `last`; None without a match there."""
        found = [match for match in self.pattern.finditer(text) if match.end() >= last]
        return _filled(self.reply, found[-1]) if found else None


@attrs.frozen
class Script:
    """The rules of a scripted model, first match first."""

    rules: tuple[Rule, ...]
    default: str

    @classmethod
    def parse(cls, text: str) -> Script:
        """Read a script; UsageError with the line that is wrong."""
        rules: list[Rule] = []
        default: str | None = None
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            pattern, arrow, reply = (part.strip() for part in line.partition("=>"))
            if not arrow:
                raise UsageError(f"script line {number}: no `=>` in {line!r}")
            if pattern:
                rules.append(_rule(number, pattern, reply))
            elif default is not None:
                raise UsageError(f"script line {number}: a second default, {reply!r}")
            else:
                default = _filled(reply, None)
        if default is None:
            raise UsageError("a script needs a line `=> REPLY` for what no rule matches")
        return cls(tuple(rules), default)

    def answer(self, prompt: str) -> str:
        """What the model says after `prompt`."""
        text = _CLOSING.sub("", prompt)
        last = text.rfind(_OPENING) + 1
        answers = (rule.answer(text, last) for rule in self.rules)
        return next((answer for answer in answers if answer is not None), self.default)


def _rule(number: int, pattern: str, reply: str) -> Rule:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"script line {number}: {pattern!r} is no pattern: {error}") from None
    for part in _PART.finditer(reply):
        name = part[2]
        known = name is None or name in compiled.groupindex
        if not (known or (name.isdecimal() and int(name) <= compiled.groups)):
            raise UsageError(f"script line {number}: {pattern!r} has no group {name!r}")
    return Rule(compiled, reply)


def _filled(reply: str, match: re.Match[str] | None) -> str:
    def part(found: re.Match[str]) -> str:
        escape, name = found.groups()
        if name is None:
            return _ESCAPES[escape]
        if match is None:
            return found[0]
        return match[int(name) if name.isdecimal() else name] or ""

    return _PART.sub(part, reply)
