"""Layers: front ends, tokens, masking, blocks."""

# Before the modules of this package: the end of its import registers all classes with
# it (`tfavmae.registration`), which must not happen half-way through one of them.
import keras  # noqa: F401
