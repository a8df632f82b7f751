"""kinetics400: clips of 400 human actions."""

from tfavmae_datasets.kinetics400.source import Kinetics400 as Source

__all__ = ["Source"]
