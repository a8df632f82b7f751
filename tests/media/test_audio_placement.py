"""Audio whose timestamps jitter, drift, leave gaps or overlap."""

import itertools
from fractions import Fraction

import av
import media_files
import numpy as np
import pytest

from tfavmae.media.audio_placement import place_frames
from tfavmae.media.clip_reader import read_clip
from tfavmae.media.options import DecodeOptions
from tfavmae.media.waveform import WaveformCollector

RATE, SIZE = 44100, 1024  # AAC, as in most files
PCM = np.random.default_rng(7).integers(-9000, 9000, 12 * RATE).astype(np.int16)


def collected(times, start=0.0, end=np.inf, sizes=SIZE):
    """A collector of `PCM` in frames with these timestamps."""
    sizes = np.broadcast_to(sizes, len(times))
    options = DecodeOptions(sample_rate_hz=RATE)
    collector = WaveformCollector(start, end, options)
    place = 0
    for time, size in zip(times, sizes, strict=True):
        samples = PCM[None, place : place + size]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE
        collector.push(frame, float(time))
        place += size
    collector.finish()
    return collector


def even_times(seconds):
    return np.arange(round(seconds * RATE / SIZE)) * SIZE / RATE


def jitter(count, most=0.020, seed=0):
    return np.random.default_rng(seed).uniform(-most, most, count)


def numbers(collector):
    return collector.num_inserted, collector.num_removed


# --- stamps that jitter around a clock that does not drift ----------------------------


@pytest.mark.parametrize("most", [0.0004, 0.010, 0.020, 0.035])
def test_jitter_changes_no_sample(most):
    times = even_times(10.0)
    moved = collected(times + jitter(len(times), most))
    assert numbers(moved) == (0, 0) and moved.damage == 0
    # One shift for all of it, near zero.
    shift = round(moved.decoded_from * RATE)
    assert abs(shift) < 0.005 * RATE
    expected = PCM[: len(times) * SIZE]
    expected = expected[-shift:] if shift < 0 else np.pad(expected, (shift, 0))
    np.testing.assert_array_equal(moved.waveform(), expected)


def test_stamps_of_buffers_that_are_delivered_at_once_change_no_sample():
    """Ten frames of 23 ms have the time at which all of them arrived."""
    times = even_times(10.0)
    moved = collected(np.repeat(times[::10], 10)[: len(times)])
    assert numbers(moved) == (0, 0)
    shift = round(moved.decoded_from * RATE)
    # The first sample of a delivery is stamped rightly, the last 0.21 s too early.
    assert -0.21 * RATE < shift < 0
    np.testing.assert_array_equal(moved.waveform(), PCM[-shift : len(times) * SIZE])


def test_a_few_wrong_stamps_change_no_sample():
    times = even_times(10.0)
    times[100:108] += 0.3
    times[200:205] -= 0.4
    moved = collected(times)
    assert numbers(moved) == (0, 0)
    np.testing.assert_array_equal(moved.waveform(), PCM[: len(times) * SIZE])


def test_a_clip_of_a_jittered_track_is_the_same_part_of_the_whole():
    times = even_times(10.0)
    times += jitter(len(times))
    whole = collected(times).waveform()
    part = collected(times[160:], 4.5, 6.0).waveform()
    assert part.size == round(1.5 * RATE)
    # The frames before 160 are not in it, so its samples are others of `PCM`.
    skipped = 160 * SIZE
    place = round(4.5 * RATE)
    found = [
        lag
        for lag in range(-400, 400)
        if np.array_equal(part[500:900], PCM[place - skipped + lag + 500 :][:400])
    ]
    of_whole = [
        lag
        for lag in range(-400, 400)
        if np.array_equal(whole[place + 500 :][:400], PCM[place + lag + 500 :][:400])
    ]
    assert len(found) == len(of_whole) == 1
    assert abs(found[0] - of_whole[0]) < 0.005 * RATE


# --- clocks that drift ----------------------------------------------------------------


@pytest.mark.parametrize("with_jitter", [False, True])
@pytest.mark.parametrize("slope", [0.01, -0.01, 0.0001])
def test_drift_is_corrected_in_steps_and_stays_within_40_ms(slope, with_jitter):
    times = even_times(10.0)
    drifting = times * (1 + slope)
    stamps = drifting + (jitter(len(times), 0.010) if with_jitter else 0)
    sizes = np.full(len(times), SIZE)
    placed = place_frames(stamps, sizes, RATE) / RATE
    steps = np.diff(placed) - SIZE / RATE
    assert np.abs(placed - drifting).max() < 0.040
    corrections = steps[np.abs(steps) > 1e-4]
    moved = collected(stamps)
    inserted, removed = numbers(moved)
    if slope == 0.0001:  # 1 ms in 10 s
        assert len(corrections) == inserted == removed == 0
        return
    assert 2 <= len(corrections) <= 3  # 0.1 s in all
    total = inserted if slope > 0 else removed
    assert abs(total / RATE - 0.1) < 0.040
    assert (removed if slope > 0 else inserted) == 0


# --- gaps and overlaps ----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.06, 0.3, 5.0])
def test_a_gap_is_silent_where_it_is(seconds):
    times = even_times(4.0)
    gap, cut = round(seconds * RATE), 86 * SIZE
    times[86:] += gap / RATE
    moved = collected(times)
    assert numbers(moved) == (gap, 0)
    expected = np.concatenate([PCM[:cut], np.zeros(gap), PCM[cut : len(times) * SIZE]])
    np.testing.assert_array_equal(moved.waveform(), expected)
    assert moved.damage == pytest.approx(gap / expected.size)


@pytest.mark.parametrize("seconds", [0.06, 0.3])
def test_an_overlap_is_cut_where_it_is(seconds):
    times = even_times(4.0)
    overlap, cut = round(seconds * RATE), 86 * SIZE
    times[86:] -= overlap / RATE
    moved = collected(times)
    assert numbers(moved) == (0, overlap)
    np.testing.assert_array_equal(
        moved.waveform(), np.delete(PCM[: len(times) * SIZE], slice(cut, cut + overlap))
    )
    assert moved.damage == 0


@pytest.mark.parametrize("seconds", [0.3, -0.3])
def test_gaps_and_overlaps_of_a_jittered_track(seconds):
    times = even_times(4.0)
    times[86:] += seconds
    moved = collected(times + jitter(len(times)))
    inserted, removed = numbers(moved)
    assert abs((inserted - removed) / RATE - seconds) < 0.006
    assert min(inserted, removed) == 0
    wave = moved.waveform().astype(int)
    shift = round(moved.decoded_from * RATE)
    assert abs(shift) < 0.006 * RATE
    # All that came before the step is there and in its place, sample for sample.
    before = PCM[max(0, -shift) : 86 * SIZE]
    np.testing.assert_array_equal(wave[max(0, shift) :][: before.size], before)
    if seconds > 0:
        assert not wave[86 * SIZE + shift :][:inserted].any()
    last = PCM[: len(times) * SIZE][-SIZE:]
    np.testing.assert_array_equal(wave[-SIZE:], last)


def test_short_pieces_between_gaps_keep_their_places():
    """Opus sends nothing while it is silent."""
    times = even_times(8.0)
    for first in range(40, 300, 8):  # 0.19 s of sound, 0.1 s of nothing
        times[first:] += 4410 / RATE
    expected = np.round(times * RATE).astype(int)
    placed = place_frames(times, np.full(len(times), SIZE), RATE)
    np.testing.assert_array_equal(placed, expected)


def test_a_gap_over_the_end_of_a_clip_counts_as_far_as_the_clip_goes():
    times = even_times(4.0)
    times[86:] += 2.0
    moved = collected(times, 1.0, 3.0)
    margin = round(0.02 * RATE)  # kept for the resampling filter
    assert moved.num_inserted == round(3.0 * RATE) + margin - 86 * SIZE
    wave = moved.waveform()
    assert wave.size == 2 * RATE
    heard = 86 * SIZE - RATE
    np.testing.assert_array_equal(wave[:heard], PCM[RATE : 86 * SIZE])
    assert not wave[heard:].any()


def test_a_clip_without_a_sample_of_the_track_has_no_audio():
    times = even_times(4.0)
    times[86:] += 4.0
    assert collected(times, 3.0, 5.0).waveform() is None


# --- in files -------------------------------------------------------------------------


def sweep(times):
    return 0.5 * np.sin(2 * np.pi * (200 + 100 * times) * times)


def write_stamped(path, offset, seconds=6.0, sound=sweep, video=None):
    """AAC whose packets are stamped with their time plus `offset(time)` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.layout = "mono"
        packets, newest = [], None
        for first in range(0, round(seconds * RATE), SIZE):
            samples = sound(np.arange(first, first + SIZE) / RATE)[None]
            frame = av.AudioFrame.from_ndarray(
                samples.astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, first
            frame.time_base = Fraction(1, RATE)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in packets:
            time = packet.pts / RATE
            stamp = packet.pts + round(offset(time) * RATE)
            if newest is not None:  # what a muxer accepts
                stamp = max(stamp, newest + RATE // 500)
            packet.pts = packet.dts = newest = stamp
            container.mux(packet)
    return path


def correlation_lag(first, second):
    size = min(first.size, second.size)
    a, b = first[:size].astype(float), second[:size].astype(float)
    spectrum = np.fft.rfft(b, 2 * size) * np.fft.rfft(a, 2 * size).conj()
    lag = int(np.fft.irfft(spectrum).argmax())
    return (lag if lag < size else lag - 2 * size) / 16000


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".mov"])
def test_a_jittered_file_sounds_like_the_even_one(tmp_path, suffix):
    noise = np.random.default_rng(3)
    even = write_stamped(tmp_path / f"even{suffix}", lambda time: 0.0)
    path = write_stamped(
        tmp_path / f"jittered{suffix}",
        lambda time: noise.uniform(-0.02, 0.02) if time > 0 else 0.0,
    )
    whole = []
    for file in (even, path):
        reading = read_clip(file, 0.0, None, DecodeOptions())
        assert numbers(reading.audio) == (0, 0), file
        whole.append(reading.to_clip().audio)
    assert abs(correlation_lag(*whole)) < 0.006
    lag = round(correlation_lag(*whole) * 16000)
    for first in range(2000, 80000, 8000):  # no piece of it is out of place
        a, b = whole[0][first:][:8000], whole[1][first + lag :][:8000]
        assert np.corrcoef(a, b)[0, 1] > 0.98
    for start in (0.5, 2.1, 3.7):
        reading = read_clip(path, start, start + 1.5, DecodeOptions())
        assert numbers(reading.audio) == (0, 0)
        part = reading.to_clip().audio
        assert part.size == 24000
        expected = whole[0][round(start * 16000) :][:24000]
        assert abs(correlation_lag(expected, part)) < 0.008


@pytest.mark.parametrize("again_at", [2.5, 1.6])
def test_streams_that_were_joined(tmp_path, again_at):
    """MPEG-TS of 2 s, then more of it that was stamped too late or too early."""
    names = []
    for index, start in enumerate((0.0, again_at)):
        names.append(
            media_files.write_clip(
                tmp_path / f"{index}.ts",
                2.0,
                video=None,
                audio_start=start,
                sound=media_files.sine(440 if index == 0 else 880),
            )
        )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(name.read_bytes() for name in names))
    reading = read_clip(joined, 0.0, None, DecodeOptions(max_damage=0.5))
    inserted, removed = numbers(reading.audio)
    with av.open(str(joined)) as container:
        frames = list(container.decode(audio=0))
    # AAC adds a frame at either end, so the stamps tell how long the gap is.
    back = [f.time - g.time - g.samples / RATE for g, f in itertools.pairwise(frames)]
    gap = max(back, key=abs)
    assert abs(gap - (again_at - 2.0)) < 3 * SIZE / RATE
    assert (inserted - removed) / RATE == pytest.approx(gap, abs=1e-4)
    assert min(inserted, removed) == 0
    audio = reading.to_clip().audio
    length = sum(frame.samples for frame in frames) / RATE + gap
    assert audio.size / 16000 == pytest.approx(length, abs=0.001)

    def pitch(first, last):
        piece = audio[round(first * 16000) : round(last * 16000)].astype(float)
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(piece.size)))
        return spectrum.argmax() * 16000 / piece.size

    assert pitch(0.1, 1.5) == pytest.approx(440, abs=5)
    assert pitch(max(again_at, 2.0) + 0.15, 3.5) == pytest.approx(880, abs=5)
    if gap > 0:
        quiet = audio[round(2.1 * 16000) : round(2.4 * 16000)]
        assert not quiet.any()


def test_a_jittered_track_stays_in_sync(tmp_path):
    """A click and a flash at 2.5 s, and stamps of audio that jitter."""
    at = 2.5
    noise = np.random.default_rng(5)
    sound, picture = media_files.impulse_and_flash(at, frame_rate=20)
    even = media_files.write_clip(
        tmp_path / "even.mkv", 5.0, audio=None, picture=picture
    )
    click = write_stamped(
        tmp_path / "click.mp4",
        lambda time: noise.uniform(-0.02, 0.02) if time > 0 else 0.0,
        seconds=5.0,
        sound=lambda times: sound(times)[0],
    )
    path = tmp_path / "both.mkv"
    with (
        av.open(str(path), "w") as out,
        av.open(str(even)) as a,
        av.open(str(click)) as b,
    ):
        inputs = [a.streams.video[0], b.streams.audio[0]]
        outputs = [out.add_stream_from_template(stream) for stream in inputs]
        packets = [
            (packet, target)
            for file, stream, target in zip((a, b), inputs, outputs, strict=True)
            for packet in file.demux(stream)
            if packet.dts is not None
        ]
        for packet, target in sorted(packets, key=lambda p: p[0].dts * p[0].time_base):
            packet.stream = target
            out.mux(packet)
    reading = read_clip(path, 0.0, None, DecodeOptions(frame_rate=20))
    clip = reading.to_clip()
    brightness = [media_files.to_pixels(jpeg).mean() for jpeg in clip.frames]
    heard = np.abs(clip.audio.astype(int)).argmax() / 16000
    assert abs(heard - np.argmax(brightness) / 20) < 0.010
    assert numbers(reading.audio) == (0, 0)
