"""The machine of one simulated run, as drawn from a scenario."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Machine:
    """A model's pools, its speed and its faults, and the engine's settings."""

    pages: int
    page_size: int
    host_pages: int
    embedding_slots: int
    adapter_slots: int
    step_tokens: int
    ageing_seconds: float
    max_passes_in_flight: int
    step_seconds: float
    row_seconds: float
    jitter: float
    disk: bool
    lost: float
    lost_calls: float
    disk_full: float
    slow_files: float
    slow: float
    not_finite: float
    multi_steps: int
    """Steps that the device makes in one call at most."""

    @property
    def slots(self) -> int:
        """Tokens that the pool holds."""
        return self.pages * self.page_size

    @property
    def faulty(self) -> bool:
        faults = self.lost, self.lost_calls, self.slow, self.not_finite, self.disk_full
        return any(faults)
