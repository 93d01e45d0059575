"""The timings of simulated machines, against figures computed by hand."""

from __future__ import annotations

import attrs
import pytest
import trio

from pie.batch import Batch, ints
from pie.errors import UsageError
from pie.testing import (
    A100,
    H100,
    H200,
    L4,
    LAPTOP,
    LLAMA_3_8B,
    LLAMA_3_70B,
    LLAMA_3_70B_FP8,
    SMOLLM2_135M,
    HashModel,
    Machine,
    ModelShape,
    RooflineTiming,
    SimulatedGpu,
)
from tests.model.support import Pass, greedy, make_batch

TIMING = RooflineTiming(H100, LLAMA_3_8B)


def _decode(passes: int, length: int) -> Batch:
    pages = -(-length // 16)
    one = Pass(tokens=[65], pages=range(pages), length=length)
    return make_batch([one] * passes, **greedy(range(passes)))


def _prefill(rows: int, length: int) -> Batch:
    pages = -(-length // 16)
    return make_batch([Pass(tokens=[65] * rows, pages=range(pages), length=length)])


@pytest.mark.parametrize(
    ("shape", "parameters", "kv_bytes"),
    [
        (LLAMA_3_8B, 8_030_261_248, 131_072),
        (LLAMA_3_70B, 70_553_706_496, 327_680),
        (SMOLLM2_135M, 134_515_008, 23_040),
    ],
    ids=["8b", "70b", "135m"],
)
def test_presets_have_the_published_number_of_parameters(
    shape: ModelShape, parameters: int, kv_bytes: int
) -> None:
    assert shape.parameters == parameters
    assert shape.kv_bytes_per_token == kv_bytes


def test_decoding_one_stream_is_bound_by_reading_the_weights() -> None:
    """15.01 GB at 2.68 TB/s, the KV of 1,000 slots read and one written, the launch."""
    moved = 2 * (8_030_261_248 - 128_256 * 4096) / 2.68e12
    assert moved == pytest.approx(0.005_601, abs=1e-6)
    attention = 1001 * 131_072 / 2.68e12

    assert TIMING.seconds(_decode(1, 1000)) == pytest.approx(moved + attention + 0.0005)


def test_a_long_prefill_is_bound_by_arithmetic() -> None:
    """512 rows of 2 x 6.98e9 operations at 593.7 TFLOP/s; attention reads its own 512 slots."""
    products = 512 * 2 * 32 * (2 * 4096 * 40 * 128 + 3 * 4096 * 14336) / 593.7e12
    assert products == pytest.approx(0.012_038, abs=1e-6)
    moved = 1024 * 131_072 / 2.68e12
    computed = (512 * 513 / 2) * 4 * 32 * 32 * 128 / 593.7e12
    assert computed > moved

    assert TIMING.seconds(_prefill(512, 512)) == pytest.approx(products + computed + 0.0005)


def test_decoding_many_streams_costs_their_kv_and_little_else() -> None:
    """The weights are read once: 64 streams of 1,500 tokens take less than twice as long."""
    kv = 64 * 1501 * 131_072 / 2.68e12
    assert kv == pytest.approx(0.004_698, abs=1e-6)

    assert TIMING.seconds(_decode(64, 1500)) - TIMING.seconds(_decode(1, 1500)) == pytest.approx(
        kv * 63 / 64
    )


def test_rows_of_a_pass_see_one_slot_more_each() -> None:
    """A chunk of 3 rows at length 10 sees 8 + 9 + 10 slots."""
    assert TIMING.attention(_prefill(3, 10))[1] == 27 * 4 * 32 * 32 * 128


def test_logits_cost_where_they_are_asked_for_and_once_each() -> None:
    plain = make_batch([Pass(tokens=[1, 2], pages=[0])])
    both = make_batch([Pass(tokens=[1, 2], pages=[0])], **greedy([1, 1]), ranked_rows=ints([1]))

    assert TIMING.products(both)[1] - TIMING.products(plain)[1] == 2 * 128_256 * 4096


def test_copied_and_cleared_pages_take_their_bytes() -> None:
    empty = make_batch([])
    kept = attrs.evolve(
        empty, copy_sources=ints([1, 2]), copy_targets=ints([3, 4]), cleared_pages=ints([5])
    )

    assert TIMING.maintenance_bytes(kept) == 5 * 16 * 131_072


@pytest.mark.parametrize(
    ("machine", "shape", "pages"),
    [
        (H100, LLAMA_3_8B, 26_674),
        (H200, LLAMA_3_8B, 52_852),
        (H200, LLAMA_3_70B_FP8, 10_747),
        (A100, LLAMA_3_8B, 26_674),
        (L4, LLAMA_3_8B, 2641),
        (LAPTOP, SMOLLM2_135M, 20_971),
    ],
)
def test_what_the_weights_leave_holds_pages(
    machine: Machine, shape: ModelShape, pages: int
) -> None:
    """(0.9 x memory - weights) / (16 x bytes of a token); a laptop has half of its memory."""
    usable = machine.memory_bytes * (0.5 if machine is LAPTOP else 0.9)
    by_hand = (usable - shape.parameters * shape.weight_bytes_each) / (
        16 * shape.kv_bytes_per_token
    )

    assert machine.pages(shape) == pages == int(by_hand)


def test_a_model_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"llama-3-70b does not fit H100: .* 141\.1 GB, and 72\.0"):
        SimulatedGpu.of(H100, LLAMA_3_70B)


async def test_a_machine_with_a_model_is_a_device() -> None:
    gpu = SimulatedGpu.of(H200, LLAMA_3_8B, make_runner=HashModel)
    began = trio.current_time()
    await gpu.run(_decode(1, 1))

    assert gpu.runner.info.name == "llama-3-8b"
    assert gpu.runner.info.pages == 52_852
    assert trio.current_time() - began == pytest.approx(
        RooflineTiming(H200, LLAMA_3_8B).seconds(_decode(1, 1))
    )


async def test_pages_move_at_the_speed_of_the_link() -> None:
    """100 pages of 2 MiB over 64 GB/s, each way."""
    gpu = SimulatedGpu.of(H100, LLAMA_3_8B)
    began = trio.current_time()
    contents = await gpu.apply(gpu.runner.read_pages, ints(range(100)))
    out = trio.current_time() - began
    await gpu.apply(gpu.runner.write_pages, ints(range(100)), contents)

    assert out == pytest.approx(100 * (2 << 20) / 64e9)
    assert trio.current_time() - began == pytest.approx(2 * out)
