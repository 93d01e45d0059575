"""Completions of OpenVINO GenAI, asked for line by line; runs with OpenVINO's Python.

    python openvino_child.py MODEL.gguf THREADS

Its first line says what it is; then each line of stdin is `[prompts, count]` and is answered with
the seconds that took and the tokens.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import numpy as np

openvino: Any = importlib.import_module("openvino")  # of another environment
openvino_genai: Any = importlib.import_module("openvino_genai")


def say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def opened(model: str, threads: int) -> Any:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 2  # GiB
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = 64
    scheduler.max_num_batched_tokens = 2048
    scheduler.dynamic_split_fuse = True
    properties = {"INFERENCE_NUM_THREADS": threads}
    return openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)


def main() -> None:
    pipeline = opened(sys.argv[1], int(sys.argv[2]))
    say({"version": openvino_genai.__version__})
    for line in sys.stdin:
        prompts, count = json.loads(line)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = count
        config.ignore_eos = True
        config.do_sample = False
        inputs = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        began = time.perf_counter()
        results = pipeline.generate(inputs, [config] * len(inputs))
        seconds = time.perf_counter() - began
        tokens = [list(result.m_generation_ids[0]) for result in results]
        short = [len(each) for each in tokens if len(each) != count]
        if short:
            raise SystemExit(f"{short} tokens came of {count}")
        say({"seconds": seconds, "tokens": tokens})


if __name__ == "__main__":
    main()
