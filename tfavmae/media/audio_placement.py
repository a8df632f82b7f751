"""Placement of the frames of an audio track on the clip clock.

A frame brings samples and a timestamp, and in ordinary files the two disagree: live
streams stamp the arrival, screen recorders the delivery of a buffer, containers round.
Such stamps jitter by 10 to 20 ms and more around a clock that does not drift.

The rule: samples follow each other without a break, at the place that the median of
their timestamps gives them. Silence is put in, or samples are cut out, only where the
stamps lead away from that place by more than 40 ms and stay away: by the median over
one second around each frame. It happens at the frame where they leave.

Players do the same. They play the samples back to back and follow the stamps loosely.
VLC corrects the sound beyond 40 ms (`AOUT_MAX_PTS_ADVANCE`, after EBU Recommendation 37
on what viewers notice); FFmpeg's `aresample=async=1` puts in silence or drops samples
beyond 0.1 s (`min_hard_comp`), which is also where mpv calls a stamp invalid. VLC
stretches the sound first, which would change what a model hears: here a track whose
clock drifts is corrected by 40 ms at a time.

A median keeps the edges of what only rises: gaps are found at their exact place, also
those between short pieces of sound (Opus leaves out what is silent). Stamps that leave
for less than half a second and come back are ignored.
"""

from collections.abc import Iterator

import numpy as np

# Timestamps are judged by their median over this long, and this far to either side.
WINDOW_SECONDS = 1.0
REACH_SECONDS = WINDOW_SECONDS / 2
# EBU Recommendation 37: sound earlier than this is noticed.
_TOLERANCE_SECONDS = 0.040
# Matroska counts in milliseconds: a first stamp this near to the median is kept, so
# that a track that begins at zero stays there.
_ROUNDING_SECONDS = 0.001


def place_frames(times: np.ndarray, sizes: np.ndarray, rate: int) -> np.ndarray:
    """Where the first sample of each frame belongs.

    Args:
        times: float `(frames,)`, seconds on the clip clock by the timestamps.
        sizes: int `(frames,)`, samples of each frame.
        rate: samples per second.

    Returns:
        int64 `(frames,)` in samples from the clock's zero. A frame that begins after
        the end of those before it leaves a gap; one that begins before it overlaps.
    """
    back_to_back = np.cumsum(sizes) - sizes
    offsets = times * rate - back_to_back
    shifts = np.empty(len(offsets), np.int64)
    tolerance = _TOLERANCE_SECONDS * rate
    mean_size = max(1.0, float(np.mean(sizes)))
    reach = max(1, round(REACH_SECONDS * rate / mean_size))
    for run in _steady_runs(offsets, reach, tolerance):
        first, usual = offsets[run.start], np.median(offsets[run])
        is_rounding = abs(first - usual) <= _ROUNDING_SECONDS * rate
        shifts[run] = np.rint(first if is_rounding else usual)
    return back_to_back + shifts


def _steady_runs(offsets: np.ndarray, reach: int, tolerance: float) -> Iterator[slice]:
    """Spans of frames in which the median of the offsets keeps to where it began.

    Args:
        offsets: float `(frames,)`.
        reach: frames on either side that a median covers.
        tolerance: largest change of the median in a span.
    """
    first, end = 0, len(offsets)
    if np.ptp(offsets) > tolerance:  # else nothing can lead away; the usual case
        padded = np.pad(offsets, reach, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
        for index, median in enumerate(np.nanmedian(windows, axis=1)):
            if index == first:
                began = median
            elif abs(median - began) > tolerance:
                yield slice(first, index)
                first, began = index, median
    yield slice(first, end)
