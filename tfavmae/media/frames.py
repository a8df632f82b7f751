"""Pictures of a video track to JPEG frames on an even grid of times."""

import io
import math

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

# Containers that count in milliseconds round frame times up by as much.
_LONGEST_TICK_SECONDS = 0.001


class PictureSampler:
    """Keeps, of the pictures pushed in order of time, those that the grid wants.

    Stored picture `k` is the one that is shown at `start + k / frame_rate`: the last
    that began by then, or the first of all where none did.

    Args:
        start: seconds where the clip starts.
        end: seconds where it ends, at most; may be infinite.
        stream: the PyAV video stream.
        options: a `media.DecodeOptions`.
    """

    name = "picture"

    def __init__(self, start, end, stream, options):
        self.start, self.end = start, end
        self.stream, self.options = stream, options
        self._tick = float(stream.time_base)
        self.tolerance = min(self._tick, _LONGEST_TICK_SECONDS) + 1e-6
        self.usual_seconds = float(1 / (stream.guessed_rate or 25))
        self.frames: list[bytes] = []
        self.num_packets = self.num_damaged = 0
        self.is_done = False
        self._reformatter = VideoReformatter()  # keeps its tables from call to call
        self._held = self._held_jpeg = None
        self._held_time = self._passed_until = -math.inf
        # What was decoded, in seconds on the clip clock.
        self.decoded_from, self.decoded_until = math.inf, -math.inf

    @property
    def damage(self) -> float:
        """Share of the clip's packets that could not be decoded."""
        return self.num_damaged / max(1, self.num_packets)

    @property
    def seconds(self) -> float:
        """From the clip's start to the end of its last picture."""
        return max(0.0, min(self.end, self.decoded_until) - self.start)

    def push(self, frame: av.VideoFrame, time: float | None):
        """Takes the next picture, shown from `time` on."""
        if time is None:  # raw streams have no clock
            time = max(self.decoded_until, self.start if self._held is None else 0)
        if time <= self._held_time:
            return
        if self._held is None:
            self.decoded_from = time
        else:
            self._store_until(time - self.tolerance)
        length = (frame.duration or 0) * self._tick
        self._held, self._held_jpeg, self._held_time = frame, None, time
        self.decoded_until = time + (length or self.usual_seconds)
        self.is_done = self._next_time() >= self.end - self.tolerance
        if self.is_done:  # what follows is not looked at, so none of it is missing
            self.decoded_until = max(self.decoded_until, self.end)

    def wants(self, time: float, next_time: float) -> bool:
        """Whether a picture shown between these times may be one that is stored."""
        if self._held is None:  # the first of all stands for those before it
            return True
        earliest = time - 2 * self.tolerance - self.start
        first = max(0, math.ceil(earliest * self.options.frame_rate))
        shown = self.start + first / self.options.frame_rate
        return shown < min(next_time + self.tolerance, self.end)

    def pass_over(self, end: float):
        """Counts a picture as read, shown until `end`, that `wants` had no use for."""
        self._passed_until = max(self._passed_until, end)

    def finish(self):
        """Stores what the last picture is still shown for."""
        if self._held is not None:
            self.decoded_until = max(self.decoded_until, self._passed_until)
        if self._held is not None and self.decoded_until > self.start:
            self._store_until(self.decoded_until - self.tolerance)
        self._held = None

    def _next_time(self) -> float:
        return self.start + len(self.frames) / self.options.frame_rate

    def _store_until(self, time):
        until = min(time, self.end - self.tolerance)
        while self._next_time() < until:
            if self._held_jpeg is None:
                self._held_jpeg = self._to_jpeg(self._held)
            self.frames.append(self._held_jpeg)

    def _to_jpeg(self, frame: av.VideoFrame) -> bytes:
        """The picture upright, with square pixels and the chosen shorter side."""
        aspect = self.stream.sample_aspect_ratio
        width, height = _square_pixels(frame.width, frame.height, aspect)
        scale = min(1.0, self.options.shorter_side / min(width, height))
        scaled = self._reformatter.reformat(
            frame,
            width=max(1, round(width * scale)),
            height=max(1, round(height * scale)),
            # JPEG's own colours, whatever the film's: no detour through RGB.
            format="yuvj444p",
            dst_colorspace="ITU601",
            dst_color_range="JPEG",
            interpolation="BICUBIC",
            threads=1,  # the workers are the parallelism
        )
        planes = _upright(scaled.to_ndarray(), _display_matrix(frame))
        image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes])
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.options.jpeg_quality)
        return buffer.getvalue()


def display_size(stream) -> tuple[int, int]:
    """`(width, height)` with square pixels, before any rotation."""
    context = stream.codec_context
    return _square_pixels(context.width, context.height, stream.sample_aspect_ratio)


def _square_pixels(width, height, aspect) -> tuple[int, int]:
    ratio = float(aspect) if aspect and 0.1 < aspect < 10 else 1.0
    return max(1, round(width * ratio)), height


def _display_matrix(frame) -> np.ndarray | None:
    """The `(2, 2)` part of the matrix that a player applies, if there is one."""
    data = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if data is None:
        return None
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def _upright(planes: np.ndarray, matrix) -> np.ndarray:
    """Turns and mirrors `(3, height, width)` by the nearest multiple of 90 degrees.

    A stored point `(x, y)` is shown at `(x, y) @ matrix`.
    """
    if matrix is None:
        return planes
    if abs(matrix[0, 0]) >= abs(matrix[0, 1]):
        flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    else:
        planes = planes.swapaxes(1, 2)
        flip_x, flip_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    step_y, step_x = (-1 if flip else 1 for flip in (flip_y, flip_x))
    return np.ascontiguousarray(planes[:, ::step_y, ::step_x])
