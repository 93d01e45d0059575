"""The CPU's kernels: LLVM IR emitted from Python, joined into one function per step.

`layout` is free of LLVM; all that emits or compiles needs the extra `[cpu]`.
"""
