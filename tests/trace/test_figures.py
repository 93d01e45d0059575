"""The figures of a run, from passes that can be checked by hand."""

from __future__ import annotations

import pytest

from pie.trace.figures import Service, figures, jain
from pie.trace.reading import BatchFacts


def _service(
    instance: int, began: float, ended: float, *, tokens: int = 1, outputs: int = 1, user: str = "a"
) -> Service:
    return Service(0, instance, user, tokens, outputs, began, ended)


def test_jain_is_1_for_equal_shares_and_1_over_n_for_one_winner() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([1.0, 2.0]) == pytest.approx(0.9)
    assert jain([]) == 1


def test_rates_count_only_the_time_in_which_a_pass_was_unanswered() -> None:
    """Instance 1 gets half the rate: two passes overlap, and the pause between does not count."""
    found = figures(
        [
            _service(0, 0, 1, tokens=10),
            _service(0, 5, 6, tokens=10),
            _service(1, 0, 2, tokens=10, user="b"),
            _service(1, 1, 4, tokens=10, user="b"),
        ],
        [],
        0,
    )

    assert found.fairness_instances == pytest.approx(jain([10, 5]))
    assert found.fairness_users == pytest.approx(jain([10, 5]))


def test_latency_of_a_token_weighs_passes_by_their_outputs() -> None:
    services = [_service(0, 0, 1, outputs=98), _service(0, 0, 5, outputs=2), _service(0, 0, 9)]
    services.append(_service(0, 0, 30, outputs=0))
    found = figures(services, [], 0)

    assert found.token_p50_ms == pytest.approx(1000)
    assert found.token_p99_ms == pytest.approx(5000)
    assert found.pass_p50_ms == pytest.approx(5000)
    assert found.pass_p99_ms == pytest.approx(30000)
    assert found.tokens_per_second == pytest.approx(101 / 30)


def test_batches_are_averaged() -> None:
    batches = [BatchFacts(0, 0, 0.5, 10, 2, 0, False), BatchFacts(0, 1, 1.5, 30, 4, 0, False)]
    found = figures([_service(0, 0, 4, tokens=40)], batches, 3)

    assert (found.rows_per_batch, found.passes_per_batch, found.batches) == (20, 3, 2)
    assert found.busy == pytest.approx(0.5)
    assert found.inputs_per_second == pytest.approx(10)
    assert found.failed == 3
