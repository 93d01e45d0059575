"""How fast Pie serves a real model, through inferlets, beside the engines one would take instead.

    python -m benchmarks.serving [--quick] [--only NAME,...] [--json OUT] [--svg OUT]
    python -m benchmarks.serving.install [NAME...]

docs/serving-speed.md says what is measured and how to read the tables.
"""
