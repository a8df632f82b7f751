"""vggsound: 200,000 clips of 309 sounds and what makes them."""

from tfavmae_datasets.vggsound.source import VGGSound as Source

__all__ = ["Source"]
