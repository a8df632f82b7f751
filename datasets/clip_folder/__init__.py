"""clip_folder: any folder of media files as a data set."""

from tfavmae_datasets.clip_folder.build import build_clip_folder
from tfavmae_datasets.clip_folder.clip_folder_dataset_builder import Builder
from tfavmae_datasets.clip_folder.options import ClipFolderConfig

__all__ = ["Builder", "ClipFolderConfig", "build_clip_folder"]
