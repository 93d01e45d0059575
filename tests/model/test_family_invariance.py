"""A row's bits are its own (contract S4) in every model of the family, adapters and masks too."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from pie.batch import UploadAdapter, ints
from pie.model import load
from pie.model.config import LlamaConfig
from pie.model.loading import read_checkpoint
from pie.model.runner import TorchRunner
from tests.model.adapters import adapted, lora_bytes, merged, random_lora
from tests.model.published import answers, published, save
from tests.model.support import Pass
from tests.model.test_against_transformers import VARIANTS
from tests.model.tiny import Array, Tiny

LENGTH = 150
TOKENS = [(31 * i + 7) % 250 for i in range(LENGTH)]
WHOLE, PIECES = range(10), range(10, 20)
CUTS = (0, 1, 9, 26, 27, 90, 131, LENGTH)
MASKS = {140: [3, 130, 8], 149: [0, 17, 133]}
"""Rows of the whole that do not see some slots, most of them beyond the windows."""
FAMILIES = (
    "llama-biased",
    "mistral",
    "qwen2-windows",
    "qwen3",
    "gemma2",
    "gemma3",
    "smollm3",
    "olmo2",
    "olmo3",
)


pytestmark = pytest.mark.usefixtures("one_thread")


@attrs.frozen
class Loaded:
    model: Any
    """That of `transformers`."""
    config: LlamaConfig
    runner: TorchRunner
    lora: dict[str, Array]
    """What the runner's adapter slot 3 holds."""

    def logits(self, passes: list[Pass], adapter: int = -1) -> Tensor:
        """Logits of all rows of `passes`."""
        rows = sum(len(one.tokens) for one in passes)
        return self.runner.logits(adapted(passes, [adapter] * len(passes)), ints(range(rows)))


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    kind, facts = VARIANTS[request.param]
    model = published(kind, seed=1, **facts)
    folder = save(model, tmp_path_factory.mktemp("model"))
    config = read_checkpoint(folder).config
    sizes = Tiny(
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
    )
    lora = {name: values * 0.3 for name, values in random_lora(sizes, seed=1).items()}
    runner = load(folder, dtype="float32", pages=64)
    assert isinstance(runner, TorchRunner)
    runner.adapt(UploadAdapter(3, lora_bytes(lora, lora_alpha="2.0")))
    return Loaded(model, config, runner, lora)


@pytest.mark.parametrize("adapter", [-1, 3])
def test_pieces_rows_and_company_have_the_bits_of_the_whole(loaded: Loaded, adapter: int) -> None:
    whole = loaded.logits([Pass(tokens=TOKENS, pages=WHOLE, masks=MASKS)], adapter)
    for start, end in pairwise(CUTS):
        masks = {row - start: runs for row, runs in MASKS.items() if start <= row < end}
        piece = Pass(tokens=TOKENS[start:end], pages=PIECES, length=end, masks=masks)
        others = [
            Pass(tokens=TOKENS[i : i + 13 * i], pages=range(20 + 5 * i, 25 + 5 * i), length=14 * i)
            for i in range(1, 4)
        ]
        place = sum(len(p.tokens) for p in others)
        together = loaded.logits([*others, piece], adapter)
        assert torch.equal(together[place:], whole[start:end]), (start, end)
    chosen = [0, 7, 63, 64, 100, 148]
    alone = [Pass(tokens=TOKENS[r : r + 1], pages=WHOLE, length=r + 1) for r in chosen]
    assert torch.equal(loaded.logits(alone, adapter), whole[chosen])


def test_several_threads_keep_the_promise_too(loaded: Loaded) -> None:
    torch.set_num_threads(2)
    try:
        whole = loaded.logits([Pass(tokens=TOKENS, pages=WHOLE)])
        last = loaded.logits([Pass(tokens=TOKENS[-1:], pages=WHOLE, length=LENGTH)])
    finally:
        torch.set_num_threads(1)
    assert torch.equal(last, whole[-1:])


def test_what_lies_beyond_the_window_does_not_count(loaded: Loaded) -> None:
    """Other tokens there change a row exactly if some layer sees all or the windows reach them."""
    changed = [(token + 9) % 250 for token in TOKENS[:20]] + TOKENS[20:]
    before = loaded.logits([Pass(tokens=TOKENS, pages=WHOLE)])
    after = loaded.logits([Pass(tokens=changed, pages=PIECES)])
    windows = loaded.config.windows
    reach = LENGTH if 0 in windows else sum(window - 1 for window in windows)
    same = (before == after).all(-1).nonzero().flatten().tolist()
    assert same == list(range(min(LENGTH, 20 + reach), LENGTH))


def test_an_adapter_acts_like_weights_it_was_folded_into(loaded: Loaded) -> None:
    found = loaded.logits([Pass(tokens=TOKENS, pages=WHOLE)], adapter=3)
    model = copy.deepcopy(loaded.model)
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    folded = merged(weights, loaded.lora, alpha=2.0)
    model.load_state_dict({name: torch.from_numpy(w) for name, w in folded.items()})
    wanted = answers(model, TOKENS)
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
