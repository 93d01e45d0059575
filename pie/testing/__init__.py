"""The test harness: an engine with simulated accelerators, in virtual time.

Public: whoever writes an inferlet can test it with what is here, without a model or a GPU.
"""

from .arithmetic import ArithmeticRunner
from .determinism import run_simulated, task_order
from .engine import Outcome, outcome_of, run_native, run_program, simulated_engine
from .faults import (
    Crash,
    DeviceCrash,
    Fault,
    FaultPlan,
    Hang,
    LostBatch,
    MemoryFault,
    SlowBatch,
    random_faults,
)
from .gpu import SimulatedGpu, StepRecord
from .guest_script import GuestScript, HostCalls
from .hashing import HashModel
from .host import HostCost
from .inferlets import RunInferlet, load_main
from .letters import LetterTokenizer
from .machines import A100, H100, H200, L4, LAPTOP, Machine
from .scripted import ScriptedModel
from .shapes import LLAMA_3_8B, LLAMA_3_70B, LLAMA_3_70B_FP8, SMOLLM2_135M, ModelShape
from .timing import LinearTiming, RooflineTiming, Timing

__all__ = [
    "A100",
    "H100",
    "H200",
    "L4",
    "LAPTOP",
    "LLAMA_3_8B",
    "LLAMA_3_70B",
    "LLAMA_3_70B_FP8",
    "SMOLLM2_135M",
    "ArithmeticRunner",
    "Crash",
    "DeviceCrash",
    "Fault",
    "FaultPlan",
    "GuestScript",
    "Hang",
    "HashModel",
    "HostCalls",
    "HostCost",
    "LetterTokenizer",
    "LinearTiming",
    "LostBatch",
    "Machine",
    "MemoryFault",
    "ModelShape",
    "Outcome",
    "RooflineTiming",
    "RunInferlet",
    "ScriptedModel",
    "SimulatedGpu",
    "SlowBatch",
    "StepRecord",
    "Timing",
    "load_main",
    "outcome_of",
    "random_faults",
    "run_native",
    "run_program",
    "run_simulated",
    "simulated_engine",
    "task_order",
]
