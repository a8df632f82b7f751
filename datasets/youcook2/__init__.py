"""youcook2: 14,000 steps of recipes with sentences."""

from tfavmae_datasets.youcook2.source import YouCook2 as Source

__all__ = ["Source"]
