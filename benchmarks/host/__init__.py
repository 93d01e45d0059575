"""What the host itself costs when the model answers at once, part by part.

    python -m benchmarks.host [--quick] [--only NAME,...] [--json OUT]

Every case runs in a process of its own, one after the other, and measures a unit of the machine's
speed beside its figures, so that runs on different days compare. docs/host-cost.md says how to
read the table.
"""
