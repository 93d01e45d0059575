"""The actors of the engine, each a thin Trio shell around a pure core."""
