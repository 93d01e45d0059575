"""Names of inferlets are read strictly, and versions are ordered."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.errors import UsageError
from pie.server.program_names import Version, is_hash, parse_name, parse_version

HASH = "0123456789abcdef" * 4

PARTS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True).filter(
    lambda part: ".." not in part and not is_hash(part)
)
NUMBERS = st.lists(st.integers(0, 10**6).map(str), min_size=1, max_size=4).map(".".join)
WORDS = st.lists(st.from_regex(r"[0-9A-Za-z-]{1,5}", fullmatch=True), max_size=3).map(".".join)
VERSIONS = st.builds(
    lambda numbers, suffix, build: (
        numbers + (f"-{suffix}" if suffix else "") + (f"+{build}" if build else "")
    ),
    NUMBERS,
    WORDS,
    WORDS,
).filter(lambda version: len(version) <= 64)


@given(PARTS, PARTS, VERSIONS, st.booleans())
def test_what_is_shown_of_a_name_reads_as_the_same_name(
    namespace: str, name: str, version: str, pinned: bool
) -> None:
    text = f"{namespace}/{name}@{version}" + (f"#{HASH}" if pinned else "")

    read = parse_name(text)

    assert str(read) == text
    assert (read.namespace, read.name, str(read.version)) == (namespace, name, version)
    assert read.hash == (HASH if pinned else None)


@given(PARTS)
def test_what_is_left_out_is_std_and_latest(name: str) -> None:
    read = parse_name(name)

    assert (read.namespace, read.version, read.hash) == ("std", None, None)
    assert str(read) == f"std/{name}@latest"
    assert parse_name(f"{name}@latest") == parse_name(f"std/{name}") == read


@given(st.text(alphabet="ab1./@#-_ \\\0:~\n٣A", max_size=30))
def test_no_name_can_mean_a_place_outside_of_a_folder(text: str) -> None:
    try:
        read = parse_name(text)
    except UsageError:
        return
    for part in (read.namespace, read.name, str(read.version)):
        assert PurePosixPath(part).parts == (part,)
        assert ".." not in part
        assert part.isascii()
        assert part.isprintable()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "name ''"),
        ("/x", "namespace ''"),
        ("x/", "name ''"),
        ("a/b/c", "name 'b/c'"),
        ("../x", "namespace '..'"),
        ("x/..", "name '..'"),
        ("a..b", "name 'a..b'"),
        (".x", "name '.x'"),
        ("-x", "name '-x'"),
        ("X", "name 'X'"),
        ("x y", "name 'x y'"),
        ("x\n", r"name 'x\n'"),
        ("x\0", r"name 'x\x00'"),
        ("é", "name 'é'"),
        (HASH, f"name '{HASH}'"),
        ("x" * 65, "65 characters, the limit is 64"),
        ("n" * 65 + "/x", "65 characters, the limit is 64"),
        ("x@", "not a version: ''"),
        ("x@v1", "not a version: 'v1'"),
        ("x@1.", "not a version: '1.'"),
        ("x@01", "not a version: '01'"),
        ("x@1.0-", "not a version: '1.0-'"),
        ("x@1.0 ", "not a version: '1.0 '"),
        ("x@1\n", r"not a version: '1\n'"),
        ("x@٣", "not a version: '٣'"),
        ("x@1@2", "not a version: '1@2'"),
        ("x@../../1", "not a version: '../../1'"),
        ("x@Latest", "not a version: 'Latest'"),
        ("x@1" + "0" * 64, "at most 64 characters"),
        ("x#", "hash ''"),
        ("x#12", "hash '12'"),
        (f"x#{HASH.upper()}", f"hash '{HASH.upper()}'"),
        (f"x#{HASH}0", "hash '0123"),
        (f"x#{HASH}#{HASH}", "hash '0123"),
    ],
)
def test_a_wrong_name_is_refused_with_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_name(text)

    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_huge_name_makes_a_short_message() -> None:
    """A client may send a megabyte of it."""
    for text in ("x" * 10**6, "x@" + "1" * 10**6, "x#" + "1" * 10**6):
        with pytest.raises(UsageError) as caught:
            parse_name(text)
        assert len(str(caught.value)) < 500


def test_versions_are_in_the_order_of_semver() -> None:
    ordered = ["0", "0.1-rc", "0.1", "0.9", "0.10", "1.0.0-alpha", "1.0.0-alpha.1"]
    ordered += ["1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1"]
    ordered += ["1.0.0", "1.0.0.1", "1.0.1", "2-0", "2", "10"]

    for low, high in itertools.pairwise(ordered):
        assert parse_version(low) < parse_version(high), (low, high)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_of_versions_is_total(first: str, second: str, third: str) -> None:
    a, b, c = Version(first), Version(second), Version(third)

    assert (a < b) + (a == b) + (b < a) == 1
    assert sorted([a, b, c]) == sorted([c, b, a])
    assert not (a < b < c) or a < c


def test_a_hash_is_64_small_hexadecimal_digits() -> None:
    assert is_hash(HASH)
    for text in ("", HASH[:-1], HASH.upper(), HASH + "\n", "g" * 64, "٣" * 64):
        assert not is_hash(text)
