"""The CPU's kernels: LLVM IR emitted from Python, joined by numba into one function per step.

`layout` is free of numba; everything else here needs the extra `[cpu]`.
"""
