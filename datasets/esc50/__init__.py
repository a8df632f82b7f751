"""esc50: 2,000 environmental sounds in 5 folds."""

from tfavmae_datasets.esc50.source import ESC50 as Source

__all__ = ["Source"]
