"""howto100m: random clips of 1.2 million narrated videos."""

from tfavmae_datasets.howto100m.source import HowTo100M as Source

__all__ = ["Source"]
