"""Arithmetic written for a kind of processor, called by `pie.model`."""
