"""epic_kitchens_100: 90,000 actions in kitchens."""

from tfavmae_datasets.epic_kitchens_100.source import EpicKitchens100 as Source

__all__ = ["Source"]
