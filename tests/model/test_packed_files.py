"""What `Tensors.take_packed` makes of whole files is what `take` makes of them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import attrs
import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pie.errors import ModelError
from pie.kernels.cpu.layout import Kind, unpack
from pie.model.checkpoint import Checkpoint
from pie.model.loaders.safetensors_file import read_safetensors
from pie.model.loading import read_checkpoint
from pie.model.packed.matrix import NotPackable
from tests.model.tiny import Tiny, write_folder, write_gguf
from tests.model_file import smollm2_path

Type = gguf.GGMLQuantizationType
TINY = Tiny(hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, layers=2)


def matrices(tiny: Tiny) -> dict[str, tuple[int, int]]:
    """Names and shapes, as whoever builds the model knows them."""
    q, kv = tiny.heads * tiny.head_dim, tiny.kv_heads * tiny.head_dim
    outer = {"token_embd.weight": (tiny.vocabulary, tiny.hidden)}
    if not tiny.tied:
        outer["output.weight"] = (tiny.vocabulary, tiny.hidden)
    of_layer = {
        "attn_q": (q, tiny.hidden),
        "attn_k": (kv, tiny.hidden),
        "attn_v": (kv, tiny.hidden),
        "attn_output": (tiny.hidden, q),
        "ffn_gate": (tiny.ffn, tiny.hidden),
        "ffn_up": (tiny.ffn, tiny.hidden),
        "ffn_down": (tiny.hidden, tiny.ffn),
    }
    return outer | {
        f"blk.{layer}.{name}.weight": shape
        for layer in range(tiny.layers)
        for name, shape in of_layer.items()
    }


def check(path: Path, tiny: Tiny, kind: Kind, floats: Kind, atol: float) -> Checkpoint:
    """All matrices of `path` are of `kind` and within `atol`; returns what is left."""
    packed, plain = read_checkpoint(path), read_checkpoint(path).tensors
    arena = packed.tensors.arena(floats)
    for name, shape in matrices(tiny).items():
        found = packed.tensors.take_packed(name, *shape, arena, floats)
        assert (found.kind, found.outputs, found.inputs) == (kind, *shape)
        assert name not in packed.tensors
        np.testing.assert_allclose(unpack(found), plain.take(name, *shape), rtol=0, atol=atol)
    return packed


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_file_is_packed_as_it_is(tmp_path: Path, kind: str) -> None:
    """The rows of q and k of llama files are brought into order."""
    tiny = attrs.evolve(TINY, kind=kind, tied=True, bias=kind == "qwen2")
    for format, packed in (("Q4_1", Kind.Q4), ("Q8_0", Kind.Q8), ("Q5_1", Kind.Q8M)):
        path = write_gguf(tmp_path / f"{format}.gguf", tiny, format=Type[format])
        left = check(path, tiny, packed, Kind.Q8, 0.0).tensors
        for layer in range(tiny.layers):
            for norm in ("attn_norm", "ffn_norm"):
                left.take(f"blk.{layer}.{norm}.weight", tiny.hidden)
            if tiny.bias:
                for part, rows in (("q", 64), ("k", 32), ("v", 32)):
                    left.take(f"blk.{layer}.attn_{part}.bias", rows)
        left.take("output_norm.weight", tiny.hidden)
        left.check_all_taken()


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_is_quantised_or_rounded(tmp_path: Path, shards: int) -> None:
    path = write_folder(tmp_path / "folder", TINY, shards=shards)
    check(path, TINY, Kind.Q8, Kind.Q8, 0.005)
    check(path, TINY, Kind.BF16, Kind.BF16, 0.005)
    for file in path.glob("*.safetensors"):
        whole = {name: torch.from_numpy(values) for name, values in TINY.weights().items()}
        if shards == 1:
            save_file({name: values.bfloat16() for name, values in whole.items()}, file)
            check(path, TINY, Kind.BF16, Kind.BF16, 0.0)


def test_what_is_converted_is_said_once_for_each_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pie.model.packed")
    exact = write_gguf(tmp_path / "exact.gguf", TINY, format=Type.Q4_0)
    rounded = write_gguf(tmp_path / "rounded.gguf", TINY)
    for path in (exact, rounded):
        tensors = read_checkpoint(path).tensors
        arena = tensors.arena()
        for name, shape in matrices(TINY).items():
            tensors.take_packed(name, *shape, arena)
        tensors.drop(name for name in TINY.weights() if name)
        tensors.drop([f"blk.{i}.{n}_norm.weight" for i in range(2) for n in ("attn", "ffn")])
        tensors.drop(["output_norm.weight"])
        tensors.check_all_taken()
    [line] = caplog.messages
    assert "rounded.gguf: 16 tensors F32 -> 8 bits, off by at most 0.4" in line
    assert line.endswith(" % of the largest in a group of 32")


def test_what_cannot_be_packed_is_known_before_anything_is_taken(tmp_path: Path) -> None:
    tensors = read_checkpoint(write_gguf(tmp_path / "t.gguf", Tiny())).tensors
    with pytest.raises(NotPackable, match=r"t\.gguf: tensor .* has 48 inputs, no multiple of 32"):
        tensors.arena()
    assert "token_embd.weight" in tensors


def test_a_matrix_that_is_not_what_was_asked_is_named(tmp_path: Path) -> None:
    tensors = read_checkpoint(write_gguf(tmp_path / "t.gguf", TINY)).tensors
    arena = tensors.arena()
    with pytest.raises(ModelError, match=r"tensor nothing is missing"):
        tensors.take_packed("nothing", 64, 64, arena)
    with pytest.raises(ModelError, match=r"output_norm.weight is no matrix"):
        tensors.take_packed("output_norm.weight", 1, 64, arena)
    with pytest.raises(ModelError, match=r"attn_q.weight has shape \[64, 64\].* ask for \[64, 3"):
        tensors.take_packed("blk.0.attn_q.weight", 64, 32, arena)
    tensors.take_packed("blk.0.attn_q.weight", 64, 64, arena)
    with pytest.raises(ModelError, match=r"attn_q.weight is missing"):
        tensors.take_packed("blk.0.attn_q.weight", 64, 64, arena)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"shape"', b'"shepa"', "the header is damaged"),
        (b'"data_offsets":[0,', b'"data_offsets":[9,', "tensor .* has .* bytes for"),
        (b"{", b"[", "the header is damaged"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = write_folder(tmp_path / "folder", TINY) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(ModelError, match=rf"model\.safetensors: {message}"):
        read_safetensors(path)
    path.write_bytes(whole[:-4])
    with pytest.raises(ModelError, match=r"tensor .* does not lie within the file"):
        read_safetensors(path)


_PEAK = """
import sys
from pathlib import Path
from pie.model.loading import read_checkpoint

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

before = memory("VmRSS")
checkpoint = read_checkpoint(Path(sys.argv[1]))
header = memory("VmRSS") - before
tensors, arena = checkpoint.tensors, checkpoint.tensors.arena()
matrices = list(tensors._matrices.values())
kept = [tensors.take_packed(m.name, m.outputs, m.inputs, arena) for m in matrices]
print(before, header, memory("VmHWM"), arena.used)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_not_held_twice() -> None:
    """The peak of a process that packs the real model, beyond what it needs without one."""
    path = smollm2_path()
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True
    )
    before, header, peak, used = map(int, done.stdout.split())
    size = path.stat().st_size
    assert used < 1.01 * size
    # Beside the packed weights there is one slice of a matrix, in the file and as it is packed.
    assert peak - before - header < used + (8 << 20), (before, header, peak, used)
