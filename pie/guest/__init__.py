"""Guests: WebAssembly components and native coroutines, and the host functions they call."""
