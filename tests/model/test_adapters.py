"""LoRA adapters: uploaded, used in mixed batches, downloaded again (contract X8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_torch
from torch import Tensor

from pie.batch import ClearAdapter, DownloadAdapter, UpdateAdapter, UploadAdapter, ints
from pie.errors import GuestError, PassFailed, UsageError
from pie.model import load
from pie.model.runner import TorchRunner
from tests.model.adapters import Merged, adapted, lora_bytes, random_lora
from tests.model.support import Pass, greedy, make_batch
from tests.model.tiny import Array, Tiny, reference_logits, write_gguf

TOKENS = [(31 * i + 7) % 250 for i in range(60)]
RANKS = {"q": 4, "k": 1, "v": 3}
LORA = random_lora(Tiny(), 1, RANKS)


def logits_with(runner: TorchRunner, slot: int, pages: range = range(4)) -> Tensor:
    batch = adapted([Pass(tokens=TOKENS, pages=pages)], [slot])
    return runner.logits(batch, ints(range(len(TOKENS))))


def greedy_tokens(runner: TorchRunner, slot: int, count: int = 20) -> list[int]:
    tokens = TOKENS[:10]
    for length in range(10, 10 + count):
        new = tokens if length == 10 else tokens[-1:]
        one = Pass(tokens=new, pages=range(2), length=length)
        answer = runner.run(adapted([one], [slot], **greedy([len(new) - 1])))
        tokens = [*tokens, int(answer.tokens[0])]
    return tokens


@pytest.mark.parametrize("variant", ["llama", "qwen2", "qwen3"])
def test_an_adapter_acts_like_weights_it_was_folded_into(variant: str, tmp_path: Path) -> None:
    """From GGUF, whose rotary rows are in another order than those of the adapter's file."""
    switches: dict[str, Any] = {"bias": variant == "qwen2", "qk_norm": variant == "qwen3"}
    # Gentle enough that rounding stays far below the tolerance.
    lora = {name: values * np.float32(0.3) for name, values in LORA.items()}
    plain = Tiny(kind=variant, **switches)
    folded = Merged(kind=variant, lora=lora, alpha=2.0, **switches)
    runner = load(write_gguf(tmp_path / "plain.gguf", plain), dtype="float32", pages=8)
    other = load(write_gguf(tmp_path / "folded.gguf", folded), dtype="float32", pages=8)
    assert isinstance(runner, TorchRunner)
    assert isinstance(other, TorchRunner)
    runner.adapt(UploadAdapter(3, lora_bytes(lora, lora_alpha="2.0")))
    found, want = logits_with(runner, 3), logits_with(other, -1)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(found, reference_logits(folded, TOKENS), atol=2e-4)
    assert not torch.allclose(logits_with(runner, -1), want, atol=1e-2)
    assert greedy_tokens(runner, 3) == greedy_tokens(other, -1)


@settings(max_examples=25, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 60), st.integers(-1, 3)),
        min_size=1,
        max_size=10,
    )
)
def test_company_changes_nothing(tiny: TorchRunner, spans: list[tuple[int, int, int]]) -> None:
    """Slots 0 to 2 hold adapters, 3 never does: whoever shares a batch, each is as alone."""
    for slot in range(3):
        ranks = {"q": 4 + slot, "v": 3} if slot else RANKS
        tiny.adapt(UploadAdapter(slot, lora_bytes(random_lora(Tiny(), slot, ranks))))
    passes = [
        Pass(
            tokens=[(i + 3 * j) % 250 for j in range(rows)],
            pages=range(6 * i, 6 * i + 6),
            length=before + rows,
        )
        for i, (rows, before, _) in enumerate(spans)
    ]
    slots = [slot for _, _, slot in spans]
    ends = np.cumsum([rows for rows, _, _ in spans]).astype(np.int32) - 1
    together = tiny.logits(adapted(passes, slots), ends)
    for i, (one, slot) in enumerate(zip(passes, slots, strict=True)):
        alone = tiny.logits(adapted([one], [slot]), ints([len(one.tokens) - 1]))
        assert torch.equal(together[i], alone[0]), i
        if slot in (-1, 3):
            bare = tiny.logits(make_batch([one]), ints([len(one.tokens) - 1]))
            assert torch.equal(together[i], bare[0]), i


def test_a_prefill_in_pieces_is_the_whole(tiny: TorchRunner) -> None:
    tiny.adapt(UploadAdapter(0, lora_bytes(LORA)))
    whole = logits_with(tiny, 0)
    for start, end in ((0, 1), (1, 9), (9, 40), (40, 60)):
        one = Pass(tokens=TOKENS[start:end], pages=range(4, 8), length=end)
        part = tiny.logits(adapted([one], [0]), ints(range(end - start)))
        assert torch.equal(part, whole[start:end])


def test_an_adapter_of_zeros_changes_no_bit(tiny: TorchRunner) -> None:
    zeros = {name: values * (".lora_A" in name) for name, values in LORA.items()}
    tiny.adapt(UploadAdapter(0, lora_bytes(zeros)))
    assert torch.equal(logits_with(tiny, 0), logits_with(tiny, -1))


def renamed(old: str, new: str) -> dict[str, Array]:
    return {name.replace(old, new): values for name, values in LORA.items()}


@pytest.mark.parametrize(
    "data",
    [
        lora_bytes(renamed("base_model.model.", "")),
        lora_bytes(renamed("base_model.model.model.", "")),
        lora_bytes(renamed(".weight", ".default.weight")),
        lora_bytes(LORA, format="pt"),
    ],
    ids=["no-prefix", "layers-only", "default", "metadata"],
)
def test_the_usual_spellings_mean_the_same(tiny: TorchRunner, data: bytes) -> None:
    tiny.adapt(UploadAdapter(0, lora_bytes(LORA)))
    tiny.adapt(UploadAdapter(1, data))
    assert torch.equal(logits_with(tiny, 1), logits_with(tiny, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_as_the_numbers_they_are(tiny: TorchRunner, dtype: torch.dtype) -> None:
    halves = {name: torch.from_numpy(values).to(dtype) for name, values in LORA.items()}
    tiny.adapt(UploadAdapter(0, save_torch(halves)))
    tiny.adapt(UploadAdapter(1, save_torch({n: v.float() for n, v in halves.items()})))
    assert torch.equal(logits_with(tiny, 1), logits_with(tiny, 0))
    assert not torch.equal(logits_with(tiny, 1), logits_with(tiny, -1))


def test_alpha_comes_from_the_file_in_any_of_three_places(tiny: TorchRunner) -> None:
    """Alpha 8 at rank 4 is as doubling the up factors."""
    lora = random_lora(Tiny(), 1)
    doubled = {n: v * np.float32(2 if ".lora_B" in n else 1) for n, v in lora.items()}
    tiny.adapt(UploadAdapter(0, lora_bytes(doubled)))
    want = logits_with(tiny, 0)
    eight = np.array(8.0, np.float32)
    modules = {n.split(".lora_")[0] + ".alpha": eight for n in lora}
    for data in (
        lora_bytes(lora, lora_alpha="8"),
        lora_bytes(lora, alpha="8.0"),
        lora_bytes({**lora, "alpha": eight}),
        lora_bytes({**lora, **modules}, lora_alpha="3"),
    ):
        tiny.adapt(UploadAdapter(1, data))
        assert torch.equal(logits_with(tiny, 1), want)


def test_layers_and_projections_may_be_missing(tiny: TorchRunner) -> None:
    part = random_lora(Tiny(), 1, {"v": 2}, layers=[1])
    tiny.adapt(UploadAdapter(0, lora_bytes(part)))
    lora = random_lora(Tiny(), 1)
    full = {name: values * 0 for name, values in lora.items()}
    for name, values in part.items():  # rank 2 in the corner of rank 4, so alpha as at rank 2
        full[name][: values.shape[0], : values.shape[1]] = values
    tiny.adapt(UploadAdapter(1, lora_bytes(full, lora_alpha="4")))
    torch.testing.assert_close(logits_with(tiny, 0), logits_with(tiny, 1), atol=1e-4, rtol=0.0)
    assert not torch.allclose(logits_with(tiny, 0), logits_with(tiny, -1), atol=1e-2)


@pytest.mark.parametrize("alphas", [{}, {"lora_alpha": "0.1"}, {"each": "one"}])
def test_what_is_downloaded_can_be_uploaded_and_is_the_same(
    tiny: TorchRunner, alphas: dict[str, str]
) -> None:
    tensors = dict(LORA)
    if "each" in alphas:
        names = sorted(name.split(".lora_")[0] + ".alpha" for name in LORA if ".lora_A" in name)
        tensors |= {n: np.array([i + 0.3], np.float32) for i, n in enumerate(names)}
    tiny.adapt(UploadAdapter(0, lora_bytes(tensors, **alphas)))
    data = tiny.adapt(DownloadAdapter(0))
    support = tiny.info.adapters
    assert support is not None
    support.check(data)
    tiny.adapt(UploadAdapter(1, data))
    assert tiny.adapt(DownloadAdapter(1)) == data
    assert torch.equal(logits_with(tiny, 1), logits_with(tiny, 0))
    for name, values in tensors.items():
        assert name.encode() in data or name.endswith(".alpha")
        assert values.tobytes() in data or name.endswith(".alpha")


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes are not safetensors"),
        (b"hash", "4 bytes are not safetensors"),
        (lora_bytes(LORA)[:-1], "not safetensors: .*not fully covered"),
        (lora_bytes({}), "no LoRA tensors"),
        (
            lora_bytes(renamed("q_proj", "o_proj")),
            r"layers\.0\.self_attn\.o_proj\.\S+ has no place",
        ),
        (lora_bytes(renamed("self_attn.q_proj", "mlp.up_proj")), r"mlp\.up_proj\.\S+ has no place"),
        (lora_bytes(renamed("layers.1", "layers.2")), r"layers\.2\S+: this model has 2 layers"),
        (lora_bytes({f"{Q0}.lora_A.weight": np.zeros((4, 48), np.float32)}), "q_proj lacks lora_B"),
        (lora_bytes(random_lora(Tiny(hidden=40), 1)), r"lora_A has shape \[4, 40\], .* \[4, 48\]"),
        (lora_bytes(random_lora(Tiny(heads=4), 1)), r"lora_B has shape \[32, 4\], .* \[48, 4\]"),
        (lora_bytes(random_lora(Tiny(), 1, {"q": 65})), "rank 65, not 1 to 64"),
        (lora_bytes(random_lora(Tiny(), 1, {"q": 0})), "rank 0, not 1 to 64"),
        (lora_bytes({n: v.astype(np.int32) for n, v in LORA.items()}), "has dtype I32"),
        (lora_bytes({n: v * np.float32("nan") for n, v in LORA.items()}), "are not finite"),
        (lora_bytes(LORA, lora_alpha="much"), "lora_alpha 'much' is not a number"),
        (lora_bytes(LORA, lora_alpha="inf"), "lora_alpha inf is no finite float32"),
        (lora_bytes({**LORA, "alpha": np.ones(2, np.float32)}), r"alpha has shape \[2\]"),
        (
            lora_bytes({**LORA, f"{Q0}.lora_A.default.weight": np.zeros((4, 48), np.float32)}),
            "two tensors for",
        ),
    ],
)
def test_what_is_no_adapter_for_this_model_is_refused_with_the_reason(
    tiny: TorchRunner, data: bytes, problem: str
) -> None:
    support = tiny.info.adapters
    assert support is not None
    with pytest.raises(GuestError, match=problem):
        support.check(data)


def test_an_empty_slot_is_the_bare_model_and_has_nothing_to_give(tiny: TorchRunner) -> None:
    assert torch.equal(logits_with(tiny, 7), logits_with(tiny, -1))
    with pytest.raises(PassFailed, match="adapter slot 7 holds nothing"):
        tiny.adapt(DownloadAdapter(7))
    with pytest.raises(PassFailed, match="adapter slot 7 holds nothing"):
        tiny.adapt(UpdateAdapter(7, (1.0,), (1,), 0.0))


def test_weights_that_overflow_fail_their_own_passes_only(tiny: TorchRunner) -> None:
    highest = np.finfo(np.float32).max
    huge = {name: np.full_like(values, highest) for name, values in LORA.items()}
    tiny.adapt(UploadAdapter(0, lora_bytes(huge, lora_alpha="1e30")))
    passes = [Pass(tokens=TOKENS[:5], pages=[page]) for page in (0, 1, 2)]
    result = tiny.run(adapted(passes, [-1, 0, -1], **greedy([4, 9, 14])))
    assert result.sampled_finite.tolist() == [True, False, True]
    bare = tiny.run(make_batch(passes[:1], **greedy([4])))
    assert result.tokens[0] == result.tokens[2] == bare.tokens[0]
    tiny.run(make_batch([], cleared_pages=ints([1])))


def test_a_cleared_slot_is_empty_again(tiny: TorchRunner) -> None:
    tiny.adapt(UploadAdapter(4, lora_bytes(LORA)))
    tiny.adapt(ClearAdapter(4))
    assert torch.equal(logits_with(tiny, 4), logits_with(tiny, -1))
    with pytest.raises(PassFailed, match="adapter slot 4 holds nothing"):
        tiny.adapt(DownloadAdapter(4))
    tiny.adapt(ClearAdapter(4))


def test_an_upload_replaces_what_was_there(tiny: TorchRunner) -> None:
    tiny.adapt(UploadAdapter(0, lora_bytes(random_lora(Tiny(), 5))))
    tiny.adapt(UploadAdapter(1, lora_bytes(LORA)))
    tiny.adapt(UploadAdapter(0, lora_bytes(LORA)))
    assert torch.equal(logits_with(tiny, 0), logits_with(tiny, 1))


def test_a_model_says_whether_it_takes_adapters(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", Tiny())
    info = load(path, pages=4, adapter_slots=2, max_adapter_rank=5).info
    assert info.adapters is not None
    assert (info.adapters.slots, info.adapters.max_rank) == (2, 5)
    assert "adapter" in info.traits
    with pytest.raises(GuestError, match="rank 6, not 1 to 5"):
        info.adapters.check(lora_bytes(random_lora(Tiny(), 1, {"k": 6})))
    without = load(path, pages=4, adapter_slots=0).info
    assert without.adapters is None
    assert "adapter" not in without.traits
    with pytest.raises(UsageError, match="2 adapter slots of rank up to 0"):
        load(path, pages=4, adapter_slots=2, max_adapter_rank=0)


@pytest.mark.slow
def test_company_changes_nothing_in_the_real_model(smollm2: TorchRunner) -> None:
    config = smollm2._model.config
    shape = Tiny(
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
    )
    for slot, rank in ((0, 8), (1, 5)):
        lora = random_lora(shape, slot, {"q": rank, "v": rank})
        small = {name: values * np.float32(0.1) for name, values in lora.items()}
        smollm2.adapt(UploadAdapter(slot, lora_bytes(small)))
    passes = [
        Pass(tokens=[(977 * i + j) % 49000 for j in range(rows)], pages=range(2 * i, 2 * i + 2))
        for i, rows in enumerate((1, 20, 7, 1, 30, 3))
    ]
    slots = [0, -1, 1, 1, 0, 0]
    ends = np.cumsum([len(one.tokens) for one in passes]).astype(np.int32) - 1
    together = smollm2.logits(adapted(passes, slots), ends)
    for i, (one, slot) in enumerate(zip(passes, slots, strict=True)):
        alone = smollm2.logits(adapted([one], [slot]), ints([len(one.tokens) - 1]))
        assert torch.equal(together[i], alone[0])
        if slot >= 0:
            bare = smollm2.logits(make_batch([one]), ints([len(one.tokens) - 1]))
            assert not torch.equal(together[i], bare[0])
