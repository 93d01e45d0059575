"""How close the packed runner is to float32, format by format: `python -m benchmarks.accuracy`."""
