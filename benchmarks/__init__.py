"""Measurements, as ratios within one run: absolute times are noise on small shared machines."""
