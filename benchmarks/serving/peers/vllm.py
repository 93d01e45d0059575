"""vLLM's server on the CPU, on a Hugging Face folder made of the same GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.serving.contenders import Row

from .places import PEERS
from .server import Server

FOLDER = PEERS / "vllm"
MODEL = FOLDER / "model"
_TCMALLOC = Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")


@attrs.define(eq=False)
class Vllm(Server):
    """Compiled, with prefix caching, which are its defaults."""

    @property
    def name(self) -> str:
        return f"vLLM CPU, {self.dtype}"

    @property
    def dtype(self) -> str:
        """bfloat16 is emulated, and slower, where the processor has none."""
        return "bfloat16" if "avx512_bf16" in self.setting.features else "float32"

    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        options = ["--served-model-name", "model", "--dtype", self.dtype]
        options += ["--max-model-len", "2048", "--max-num-seqs", "64"]
        options += ["--host", "127.0.0.1", "--port", str(port)]
        program = str(FOLDER / "venv" / "bin" / "vllm")
        return [program, "serve", str(MODEL), *options], self._environment()

    def _environment(self) -> Mapping[str, str]:
        """What vLLM's guide to the CPU asks for, as far as it is there."""
        wanted = [_TCMALLOC, FOLDER / "venv" / "lib" / "libiomp5.so"]
        return {
            "PATH": f"{FOLDER / 'venv' / 'bin'}:{os.environ.get('PATH', '')}",
            "LD_PRELOAD": ":".join(str(path) for path in wanted if path.exists()),
            "OMP_NUM_THREADS": str(self.setting.threads),
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, self.setting.cores)),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(FOLDER / "cache"),
            # What it keeps of a whole compiled model cannot be loaded here, and is made again.
            "VLLM_USE_AOT_COMPILE": "0",
            "TORCHINDUCTOR_CACHE_DIR": str(FOLDER / "cache" / "inductor"),
            # Compiling for the first time takes minutes.
            "VLLM_ENGINE_READY_TIMEOUT_S": "900",
            "HF_HUB_OFFLINE": "1",
        }

    def constrained(self, schema: Mapping[str, Any]) -> Row:
        return {"structured_outputs": {"json": schema}}
