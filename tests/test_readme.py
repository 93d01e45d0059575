"""What the first pages say is true: their links lead somewhere and their code runs."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pie.testing import GuestScript, HostCalls, RunInferlet, run_native, simulated_engine

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "wit" / "README.md"])
PAGES.append(ROOT / "inferlets" / "README.md")


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!\w+://)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "inferlets" / "README.md"])
async def test_the_example_runs(page: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(code_blocks(page, "python")[0], namespace)

    async with simulated_engine() as engine:
        outcome = await run_native(engine, namespace["main"], ["hello"])

    assert outcome.text


async def test_its_three_line_test_passes(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    example, test = code_blocks(ROOT / "README.md", "python")
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "app.py").write_text(example)
    exec(test, namespace)

    async with simulated_engine() as engine:
        await namespace["test_yes"](RunInferlet(lambda: engine, tmp_path, tmp_path))


async def test_the_script_in_the_guide_to_testing_runs(run_inferlet: RunInferlet) -> None:
    """The last of its blocks; top-level await needs a function around it."""
    block = code_blocks(ROOT / "docs" / "testing.md", "python")[-1]
    namespace: dict[str, Any] = {"GuestScript": GuestScript, "HostCalls": HostCalls}
    source = textwrap.indent(block, "    ")
    exec(f"async def main(run_inferlet):\n{source}\n    return outcome", namespace)

    assert len((await namespace["main"](run_inferlet)).text) == 1


def test_a_fragment_is_one_sentence_of_a_known_kind() -> None:
    for fragment in (ROOT / "changelog.d").iterdir():
        assert re.fullmatch(r"[\w-]+\.(added|changed|fixed|removed)\.md", fragment.name)
        assert re.fullmatch(r"[^\n]+\.\n", fragment.read_text()), fragment.name
