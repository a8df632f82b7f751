"""kinetics_sounds: clips of 32 actions that can be heard."""

from tfavmae_datasets.kinetics_sounds.source import KineticsSounds as Source

__all__ = ["Source"]
