"""Stored clips, and whole media files, in the form that pages show."""

import numpy as np

from tfavmae.data.pipeline import ClipSplit
from tfavmae.data.splits import place_of
from tfavmae.report.cards import MAX_SECONDS
from tfavmae.report.contents import Clip
from tfavmae.tasks.media import MediaClips


def stored_clip(split: ClipSplit, row: int) -> Clip:
    """A clip of a split, with its class if it has one."""
    example = split.example(int(row))
    name, classes = split.ids()[row], split.class_of_clips()
    return Clip(
        name=name,
        video=np.stack(list(example["frames"])) if example["has_video"] else None,
        audio=example["audio"] if example["has_audio"] else None,
        label=classes[row] if classes else "",
        file=place_of(name)[0],
    )


def media_clip(clips: MediaClips, file: int, label: str = "") -> Clip:
    """The first seconds of a media file, as much as a card can play.

    Args:
        clips: the windows of several files.
        file: index of the file.
        label: what is known about it.
    """
    is_shown = (clips.file_of_clip == file) & (clips.start_seconds < MAX_SECONDS)
    parts = [stored_clip(clips.split, row) for row in np.flatnonzero(is_shown)]
    videos = [part.video for part in parts if part.video is not None]
    # A film may change its size on the way; a card has one size.
    same = [v for v in videos if v.shape[1:] == videos[0].shape[1:]]
    audios = [part.audio for part in parts if part.audio is not None]
    return Clip(
        name=clips.files[file],
        video=np.concatenate(same) if same else None,
        audio=np.concatenate(audios) if audios else None,
        label=label,
    )
