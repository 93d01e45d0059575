"""Names of inferlets: `[ns/]name[@version][#hash]`, and which version is newer.

The grammar is strict, so that no name can mean a path or stand for a bare hash. Without them,
the namespace is `std` and the version `latest`: the highest there is.
"""

from __future__ import annotations

import re
from functools import total_ordering
from typing import NoReturn

import attrs

from pie.errors import UsageError

STD, LATEST = "std", "latest"
MOST_CHARACTERS = 64
"""Of a namespace, a name and a version each."""
_SHOWN = 80

_PART = re.compile(r"[a-z0-9][a-z0-9._-]*")
_HASH = re.compile(r"[0-9a-f]{64}")
_NUMBER = r"(?:0|[1-9][0-9]*)"
_WORDS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"({_NUMBER}(?:\.{_NUMBER})*)(?:-({_WORDS}))?(?:\+({_WORDS}))?")


def is_hash(text: str) -> bool:
    """Whether `text` is a bare BLAKE3 hash: 64 lower-case hexadecimal digits."""
    return _HASH.fullmatch(text) is not None


@total_ordering
@attrs.frozen
class Version:
    """Dotted numbers with an optional `-suffix` and `+build`, ordered as by semver.

    A version with a suffix comes before the one without. Missing numbers count as 0, and where
    semver sees no difference, the text decides, so that the order is total.
    """

    text: str

    def __lt__(self, other: Version) -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[object, ...]:
        numbers, suffix, _ = _match(self.text).groups()
        parts = [int(number) for number in numbers.split(".")]
        while parts and parts[-1] == 0:
            parts.pop()
        words = [] if suffix is None else [_word_rank(word) for word in suffix.split(".")]
        return parts, suffix is None, words, self.text

    def __str__(self) -> str:
        return self.text


def parse_version(text: str) -> Version:
    """`1.0.0`, `0.3`, `2.0.0-rc.1`. UsageError for anything else, `latest` included."""
    if len(text) > MOST_CHARACTERS or _VERSION.fullmatch(text) is None:
        raise UsageError(
            f"not a version: {_shown(text)}; it is dotted numbers without leading zeros, with an "
            f"optional -suffix, at most {MOST_CHARACTERS} characters"
        )
    return Version(text)


@attrs.frozen(kw_only=True)
class ProgramName:
    """What a client or an operator called an inferlet."""

    namespace: str = STD
    name: str
    version: Version | None = None
    """None: the latest."""
    hash: str | None = None
    """What its content must be, if given."""

    @property
    def base(self) -> str:
        """Without version and hash."""
        return f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        pinned = "" if self.hash is None else f"#{self.hash}"
        return f"{self.base}@{self.version or LATEST}{pinned}"


def parse_name(text: str) -> ProgramName:
    """Read `[ns/]name[@version][#hash]`. UsageError that names the part that is wrong."""
    rest, has_hash, digest = text.partition("#")
    rest, has_version, version = rest.partition("@")
    first, has_namespace, second = rest.partition("/")
    namespace, name = (first, second) if has_namespace else (STD, first)
    _check_part(text, "namespace", namespace)
    _check_part(text, "name", name)
    if is_hash(name):
        _refuse(text, "name", name, "a hash is not a name")
    if has_hash and not is_hash(digest):
        _refuse(text, "hash", digest, "it is 64 lower-case hexadecimal digits")
    return ProgramName(
        namespace=namespace,
        name=name,
        version=_version_in(text, version) if has_version else None,
        hash=digest if has_hash else None,
    )


def _check_part(text: str, part: str, value: str) -> None:
    if len(value) > MOST_CHARACTERS:
        _refuse(text, part, value, f"{len(value)} characters, the limit is {MOST_CHARACTERS}")
    if _PART.fullmatch(value) is None or ".." in value:
        _refuse(
            text,
            part,
            value,
            "it is lower-case letters, digits, '-', '_' and single '.', beginning with a letter "
            "or digit",
        )


def _version_in(text: str, version: str) -> Version | None:
    if version == LATEST:
        return None
    try:
        return parse_version(version)
    except UsageError as error:
        raise UsageError(f"inferlet {_shown(text)}: {error}") from None


def _refuse(text: str, part: str, value: str, reason: str) -> NoReturn:
    raise UsageError(f"inferlet {_shown(text)}: wrong {part} {_shown(value)}: {reason}")


def _shown(text: str) -> str:
    """In quotes, and short enough for one line."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _match(text: str) -> re.Match[str]:
    found = _VERSION.fullmatch(text)
    assert found is not None, text
    return found


def _word_rank(word: str) -> tuple[bool, int, str]:
    """Numbers come before words, by value."""
    return (False, int(word), "") if word.isdecimal() else (True, 0, word)
