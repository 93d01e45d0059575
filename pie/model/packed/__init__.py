"""Weights in the packed form that the kernels of `pie.kernels.cpu` read, from any file.

`blocks` understands the quantised formats of GGUF, `floats` quantises what is not, `place` puts
either where the layout wants it, `arena` is the memory, `matrix` joins them.
"""
