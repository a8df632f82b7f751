"""Models: encoders and decoders wired as the papers wire them."""

# Before the modules of this package: the end of its import registers all classes with
# it (`tfavmae.registration`), which must not happen half-way through one of them.
import keras  # noqa: F401
