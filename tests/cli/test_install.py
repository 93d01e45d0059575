"""`pie install`, `pie programs` and `pie uninstall`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from pie.server.blobs import hash_of
from pie.server.library import ProgramLibrary
from pie.server.program_names import parse_name
from tests.model_file import model_home

from .conftest import Ran
from .support import PROBE, returning

pytestmark = pytest.mark.slow

Pie = Callable[..., Ran]


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    path = tmp_path / "tool.wat"
    path.write_text(returning("one"))
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.wat"
    path.write_text(returning("two"))
    return path


def digest(path: Path) -> str:
    """Of what is installed: the binary form."""
    return hash_of(bytes(wat2wasm(path.read_text())))


def test_what_is_installed_is_listed_until_it_is_not(pie: Pie, home: Path, tool: Path) -> None:
    assert pie("programs") == Ran(0, "", "")
    assert not (home / "programs").exists()

    installed = pie("install", tool)

    assert installed == Ran(0, f"installed std/tool@0.1.0\t0.5 KiB\t{digest(tool)}\n", "")
    listed = f"std/tool@0.1.0\t0.5 KiB\t{digest(tool)}\teverybody\n"
    assert pie("programs") == Ran(0, listed, "")
    assert pie("install", tool) == installed, "the same once more is no mistake"
    assert pie("uninstall", "tool@0.1.0").out.startswith("uninstalled std/tool@0.1.0\t0.5 KiB\t")
    assert pie("programs") == Ran(0, "", "")


def test_the_name_can_be_chosen(pie: Pie, home: Path, tool: Path) -> None:
    assert pie("install", tool, "--as", "lab/it@2.0-rc.1").out.startswith("installed lab/it@2.0-rc")
    assert pie("install", tool, "--as", "it").out.startswith("installed std/it@0.1.0\t")
    assert pie("install", tool, "--as", "it@latest").out.startswith("installed std/it@0.1.0\t")

    assert [line.split("\t")[0] for line in pie("programs").out.splitlines()] == [
        "lab/it@2.0-rc.1",
        "std/it@0.1.0",
    ]


def test_other_content_replaces_a_version_only_when_asked(
    pie: Pie, home: Path, tool: Path, other: Path
) -> None:
    pie("install", tool)

    refused = pie("install", other, "--as", "tool")
    assert (refused.code, refused.out) == (2, "")
    assert f"std/tool@0.1.0 is installed with other content, {digest(tool)}" in refused.err
    assert "--replace" in refused.err

    assert pie("install", other, "--as", "tool", "--replace").code == 0
    assert digest(other) in pie("programs").out
    assert [path.stem for path in (home / "programs" / "blobs").iterdir()] == [digest(other)]


@pytest.mark.parametrize("arguments", [("--as", "../x"), ("--as", "x@1#" + "0" * 64)])
def test_a_wrong_name_is_refused(pie: Pie, home: Path, tool: Path, arguments: tuple[str]) -> None:
    ran = pie("install", tool, *arguments)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert not (home / "programs").exists()


def test_a_file_whose_name_is_no_name_needs_another(pie: Pie, home: Path, tool: Path) -> None:
    ran = pie("install", tool.rename(tool.with_name("My Tool.wat")))

    assert ran.code == 2
    assert ran.err.endswith("; choose a name with --as\n")


def test_what_is_no_inferlet_is_not_installed(pie: Pie, home: Path, tmp_path: Path) -> None:
    (tmp_path / "no.wat").write_text("(component)")

    ran = pie("install", tmp_path / "no.wat")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("pie: no.wat: no inferlet: it does not export")
    assert pie("programs").out == ""
    missing = pie("install", tmp_path / "absent.wasm")
    assert (missing.code, missing.err) == (
        2,
        f"pie: {tmp_path}/absent.wasm: no such file or folder\n",
    )


def test_what_is_not_installed_cannot_be_taken_away(pie: Pie, home: Path, tool: Path) -> None:
    pie("install", tool)

    for name, reason in (
        ("tool", "which version of std/tool? `pie programs` shows them"),
        ("tool@3", "std/tool@3 is not installed; there is std/tool@0.1.0"),
        (f"tool@0.1.0#{'0' * 64}", "is not installed; there is std/tool@0.1.0"),
        ("tool@x", "not a version: 'x'"),
    ):
        ran = pie("uninstall", name)
        assert ran.code == 2
        assert reason in ran.err


def test_uploads_of_users_are_shown_and_their_names_can_go(
    pie: Pie, home: Path, tool: Path
) -> None:
    library = ProgramLibrary.open(home / "programs")
    wasm = bytes(wat2wasm(tool.read_text()))
    for name in (None, parse_name("mine@1")):
        library.add_upload("ann", wasm, digest(tool), name, limit=1 << 20)
    library.close()

    assert pie("programs").out == (
        f"std/mine@1\t0.5 KiB\t{digest(tool)}\tuser ann\nuser ann\t0.5 KiB\t1 uploads\n"
    )
    assert pie("uninstall", "mine@1").code == 2
    assert pie("uninstall", "mine@1", "--user", "ann").code == 0
    assert pie("programs").out == "user ann\t0.5 KiB\t1 uploads\n"


@pytest.fixture(scope="module")
def shared_cache() -> Path:
    """Of the repository's PIE_HOME, so that a folder is built once for all tests."""
    return model_home() / "cache"


def test_a_folder_is_built_and_installed_under_its_name(
    pie: Pie, shared_cache: Path, home: Path
) -> None:
    shared_cache.mkdir(parents=True, exist_ok=True)
    home.mkdir()
    (home / "cache").symlink_to(shared_cache)

    ran = pie("install", PROBE)

    assert ran.code == 0
    assert ran.out.startswith("installed std/probe@0.1.0\t2")
    assert pie("programs").out.startswith("std/probe@0.1.0\t")
