"""audiocaps: 50,000 sounds with sentences."""

from tfavmae_datasets.audiocaps.source import AudioCaps as Source

__all__ = ["Source"]
