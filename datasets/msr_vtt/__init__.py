"""msr_vtt: 10,000 clips with sentences."""

from tfavmae_datasets.msr_vtt.source import MSRVTT as Source

__all__ = ["Source"]
