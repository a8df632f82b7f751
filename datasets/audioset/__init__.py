"""audioset: two million clips of 527 sound events."""

from tfavmae_datasets.audioset.source import AudioSet as Source

__all__ = ["Source"]
