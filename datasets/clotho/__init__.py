"""clotho: 6,000 sounds with five sentences each."""

from tfavmae_datasets.clotho.source import Clotho as Source

__all__ = ["Source"]
