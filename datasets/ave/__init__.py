"""ave: 4,143 events, second by second."""

from tfavmae_datasets.ave.source import AVE as Source

__all__ = ["Source"]
