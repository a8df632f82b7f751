"""What a worker may answer once a media file has taken it over."""

import gc
import io
import os
import pickle
import struct

import numpy as np

from tfavmae.building.messages import pack
from tfavmae.media.decode import Clip


class Bomb:
    """A pickle that runs a command when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def answer(item):
    """Answers `[kind, path]`: a clip, or past the pool's own code something else."""
    kind, path = item
    clip = Clip(np.zeros(16, np.int16), [], 8.0, 1.0)
    if kind == "good":
        return clip
    if kind == "escapes":
        raise RuntimeError("two\nlines\x1b[31m") from None
    fields = {**vars(clip), "audio": np.zeros(16, np.float32)}
    pipe().write(
        {
            "pickle": pickle.dumps(Bomb(path)),
            "endless": struct.pack("<QQ", 2**40, 0),
            "other value": pack(["value", "a clip", False]),
            "other reason": pack(["reason", clip, 0]),
            "float audio": pack(["value", fields, False]),
            "silent end": b"",
        }[kind]
    )
    pipe().flush()
    os._exit(0)


def pipe():
    """The pipe to the caller, which nothing hides from code in this process."""
    (found,) = [
        one
        for one in gc.get_objects()
        if isinstance(one, io.BufferedWriter) and one.fileno() > 2 and one.mode == "wb"
    ]
    return found
