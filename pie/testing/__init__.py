"""The test harness: an engine with simulated accelerators, in virtual time.

Public: whoever writes an inferlet can test it with what is here, without a model or a GPU.
"""

from .engine import Outcome, outcome_of, run_native, simulated_engine
from .gpu import SimulatedGpu, StepRecord
from .hashing import HashModel, LetterTokenizer
from .timing import LinearTiming, Timing

__all__ = [
    "HashModel",
    "LetterTokenizer",
    "LinearTiming",
    "Outcome",
    "SimulatedGpu",
    "StepRecord",
    "Timing",
    "outcome_of",
    "run_native",
    "simulated_engine",
]
