"""Sampling of a video track: JPEG frames on an even grid of times."""

import io
import math
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from PIL import Image

from tfavmae.media.options import DecodeOptions

# Containers that count in milliseconds round frame times up by as much.
_LONGEST_TICK_SECONDS = 0.001
# Where FFmpeg does not know a rate, it names the clock (1000 or 90000 per second).
_LOWEST_FRAME_RATE, _HIGHEST_FRAME_RATE = 1 / 600, 960
_USUAL_FRAME_RATE = 25
# Frames whose JPEGs overlapping clips share.
_NUM_SHARED = 4


class JpegEncoder:
    """Makes JPEGs of the frames of a track; of its latest frames only once.

    Args:
        stream: the PyAV video stream.
        options: the form in which frames are stored.
    """

    def __init__(self, stream: av.VideoStream, options: DecodeOptions) -> None:
        self.stream, self.options = stream, options
        # Kept, because it reuses its tables; its types deny the names that it accepts.
        self._reformatter: Any = VideoReformatter()
        # By `id`; keeping the frame keeps its `id` from being given to another one.
        self._latest: dict[int, tuple[Any, bytes]] = {}

    def __call__(self, frame: av.VideoFrame) -> bytes:
        """The JPEG of a frame."""
        if id(frame) not in self._latest:
            if len(self._latest) >= _NUM_SHARED:
                del self._latest[next(iter(self._latest))]
            self._latest[id(frame)] = frame, self.to_jpeg(frame)
        return self._latest[id(frame)][1]

    def to_jpeg(self, frame: av.VideoFrame) -> bytes:
        """The frame upright, with square pixels and the chosen shorter side."""
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
        planes = scaled.to_ndarray()
        side_data: Any = frame.side_data  # by type, although its types say by name
        data = side_data.get(SideDataType.DISPLAYMATRIX)
        if data is not None:
            matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
            planes = upright(planes, matrix)
        image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes])
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.options.jpeg_quality)
        return buffer.getvalue()


class FrameSampler:
    """Keeps, of the frames pushed in order of time, those that the grid needs.

    Stored frame `k` is the one that is shown at `start + k / frame_rate`: the last that
    began by then, or the first of all where none did.

    Args:
        start: start of the clip in seconds.
        end: latest end of the clip in seconds; may be infinite.
        stream: the PyAV video stream.
        options: the form in which frames are stored.
        encoder: shared with overlapping clips of the track; an own one by default.

    Attributes:
        frames: JPEG bytes of the stored frames.
        num_packets, num_damaged: packets of the clip, and those with damage.
        is_done: whether further frames cannot change anything.
        decoded_from, decoded_until: seconds on the clip clock.
    """

    name = "video"
    lookahead = 0.0  # seconds after the clip that decide what is stored

    def __init__(
        self,
        start: float,
        end: float,
        stream: av.VideoStream,
        options: DecodeOptions,
        encoder: JpegEncoder | None = None,
    ) -> None:
        self.start, self.end, self.options = start, end, options
        self._encoder = encoder or JpegEncoder(stream, options)
        self._tick = float(stream.time_base or 0)
        self.tolerance = min(self._tick, _LONGEST_TICK_SECONDS) + 1e-6
        self.usual_seconds = 1 / (frame_rate(stream) or _USUAL_FRAME_RATE)
        self.frames: list[bytes] = []
        self.num_packets = self.num_damaged = 0
        self.is_done = False
        self._held: Any = None  # the latest frame
        self._held_time = self._passed_until = -math.inf
        self.decoded_from, self.decoded_until = math.inf, -math.inf

    @property
    def damage(self) -> float:
        """Share of the clip's packets that could not be decoded."""
        return self.num_damaged / max(1, self.num_packets)

    @property
    def seconds(self) -> float:
        """From the clip's start to the end of its last frame."""
        return max(0.0, min(self.end, self.decoded_until) - self.start)

    def push(self, frame: av.VideoFrame, time: float | None) -> None:
        """Takes the next frame, shown from `time` on (seconds on the clip clock)."""
        if time is None:  # raw streams have no clock
            time = max(self.decoded_until, self.start if self._held is None else 0)
        if time <= self._held_time:
            return
        if self._held is None:
            self.decoded_from = time
        else:
            self._store_until(time - self.tolerance)
        length = (frame.duration or 0) * self._tick
        self._held, self._held_time = frame, time
        self.decoded_until = time + (length or self.usual_seconds)
        self.is_done = self._next_time() >= self.end - self.tolerance
        if self.is_done:  # what follows is not looked at, so none of it is missing
            self.decoded_until = max(self.decoded_until, self.end)

    def wants(self, time: float, next_time: float) -> bool:
        """Whether a frame shown between these times may be one that is stored."""
        if self._held is None:  # the first of all stands for those before it
            return True
        earliest = time - 2 * self.tolerance - self.start
        first = max(0, math.ceil(earliest * self.options.frame_rate))
        shown = self.start + first / self.options.frame_rate
        return shown < min(next_time + self.tolerance, self.end)

    def pass_over(self, end: float) -> None:
        """Counts a frame, shown until `end`, as read although it was not decoded."""
        self._passed_until = max(self._passed_until, end)

    def finish(self) -> None:
        """Stores the last frame for as long as it is shown."""
        if self._held is not None:
            self.decoded_until = max(self.decoded_until, self._passed_until)
        if self._held is not None and self.decoded_until > self.start:
            self._store_until(self.decoded_until - self.tolerance)
        self._held = None

    def _next_time(self) -> float:
        return self.start + len(self.frames) / self.options.frame_rate

    def _store_until(self, time: float) -> None:
        """Stores the held frame at all times of the grid before `time`."""
        until = min(time, self.end - self.tolerance)
        while self._next_time() < until:
            self.frames.append(self._encoder(self._held))


def frame_rate(stream: av.VideoStream) -> float | None:
    """Average frames per second; None where the file does not tell."""
    rate = stream.guessed_rate
    if rate is None or not _LOWEST_FRAME_RATE <= rate <= _HIGHEST_FRAME_RATE:
        return None
    return float(rate)


def display_size(stream: av.VideoStream) -> tuple[int, int]:
    """`(width, height)` in pixels with square pixels, before any rotation."""
    context = stream.codec_context
    return _square_pixels(context.width, context.height, stream.sample_aspect_ratio)


def _square_pixels(width: int, height: int, aspect: Any) -> tuple[int, int]:
    # Headers also state 0, and nonsense such as 1:1000.
    ratio = float(aspect) if aspect and 0.1 < aspect < 10 else 1.0
    return max(1, round(width * ratio)), height


def upright(planes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turns and mirrors planes by the nearest multiple of 90 degrees.

    Args:
        planes: `(3, height, width)`.
        matrix: `(2, 2)` part of the display matrix that a player applies: a stored
            point `(x, y)` is shown at `(x, y) @ matrix`.
    """
    if abs(matrix[0, 0]) >= abs(matrix[0, 1]):
        flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    else:
        planes = planes.swapaxes(1, 2)
        flip_x, flip_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    step_y, step_x = (-1 if flip else 1 for flip in (flip_y, flip_x))
    return np.ascontiguousarray(planes[:, ::step_y, ::step_x])
