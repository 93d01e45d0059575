"""A manifest is a name with a version, or a refusal in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.errors import UsageError
from pie.server.manifest import MAX_CHARACTERS, read_manifest


def test_the_name_and_the_version_are_read_and_the_rest_is_not() -> None:
    read = read_manifest(
        '[package]\nname = "me/tool"\nversion = "1.2.0"\nauthors = ["x"]\n'
        '[engine]\nmin_version = "0.2"\n'
    )

    assert str(read) == "me/tool@1.2.0"
    assert str(read_manifest('package = {name = "tool", version = "1"}')) == "std/tool@1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no table [package]"),
        ("package = 1", "no table [package]"),
        ("[package", "not TOML: "),
        ("x = " + "[" * 5000, "not TOML: "),
        ("x = " + "1" * 5000, "not TOML: "),
        ("x = 2020-02-31", "not TOML: "),
        ('[package]\nversion = "1"', "package.name is missing or no text"),
        ('[package]\nname = "x"', "package.version is missing or no text"),
        ('[package]\nname = "x"\nversion = 1', "package.version is missing or no text"),
        ('[package]\nname = "x@1"\nversion = "1"', "package.name is [ns/]name alone, not 'x@1'"),
        ('[package]\nname = "x#1"\nversion = "1"', "package.name is [ns/]name alone, not 'x#1'"),
        ('[package]\nname = "../x"\nversion = "1"', "wrong namespace '..'"),
        ('[package]\nname = "x"\nversion = "latest"', "is dotted numbers, not 'latest'"),
        ('[package]\nname = "x"\nversion = "a"', "not a version: 'a'"),
        (f'[package]\nname = "x"\nversion = "1#{"a" * 64}"', "is dotted numbers, not '1#aaaa"),
        ("#" * (MAX_CHARACTERS + 1), "at most 16384"),
    ],
)
def test_a_wrong_manifest_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(text)

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@given(st.text(alphabet='[]{}"=.,\n #x1-:_\\ué', max_size=200))
def test_nothing_but_a_refusal_comes_of_nonsense(text: str) -> None:
    with pytest.raises(UsageError):
        read_manifest(text)
