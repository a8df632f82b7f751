"""`tfavmae.building.decoding` and `worker_pool`: examples despite bad files."""

import csv
import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import time

import media_files
import numpy as np
import pytest

from tfavmae.building import decoding
from tfavmae.building.clip_cache import PreparedClips
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.media import decode

MISBEHAVE = "media_files:decode_or_misbehave"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for index in range(6):
        sound = media_files.sine(200 + 100 * index)
        media_files.write_clip(folder / f"clip_{index}.mp4", 1.0, sound=sound)
    media_files.write_clip(folder / "mute.mkv", 1.0, audio=None)
    media_files.write_clip(folder / "blind.webm", 1.0, video=None)
    media_files.write_clip(
        folder / "silent.mp4", 1.0, sound=lambda times: np.zeros((1, times.size))
    )
    media_files.write_text(folder / "text.mp4")
    for kind in ("die", "crash", "hang", "hog", "raise"):
        (folder / f"{kind}_1.mp4").write_bytes(b"x")
    return folder


def rows(folder, *names):
    return [decoding.Row(name, os.fspath(folder / name)) for name in names]


def good_rows(folder):
    return rows(folder, *(f"clip_{index}.mp4" for index in range(6)))


def report(path) -> list[tuple[str, str]]:
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["path", "reason"]
    return [tuple(line) for line in lines]


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(2, memory_limit_bytes=3 * 2**30) as pool:
        yield pool


def test_a_row_becomes_a_stored_example(folder, pool):
    row = decoding.Row("a", folder / "clip_1.mp4", 0.25, 0.75, {"label": 3})
    ((key, example),) = decoding.decode_rows([row], pool=pool)
    assert key == example["id"] == "a"
    assert example["audio"].dtype == np.int16 and example["audio"].shape == (8000,)
    assert len(example["frames"]) == 4 and example["frame_rate"] == 8.0
    assert media_files.to_pixels(example["frames"][0]).shape == (48, 64, 3)
    assert example["has_audio"] is True and example["has_video"] is True
    assert example["label"] == 3


def test_missing_tracks_and_silence_are_counted(folder, pool):
    decoded = decoding.decode_rows(
        rows(folder, "mute.mkv", "blind.webm", "silent.mp4", "text.mp4"), pool=pool
    )
    mute, blind, silent = (example for _, example in decoded)
    assert mute["audio"].shape == (0,) and not mute["has_audio"] and mute["has_video"]
    assert blind["frames"] == [] and not blind["has_video"] and blind["has_audio"]
    assert silent["has_audio"] and silent["audio"].size == 16000
    summary = decoded.summary
    assert (summary.num_ok, summary.num_bad) == (3, 1)
    assert (summary.num_without_audio, summary.num_without_video) == (1, 1)
    assert summary.num_silent == 1
    assert summary.clip_seconds == pytest.approx(3.0, abs=0.1)
    assert summary.seconds > 0
    assert "3 clips" in str(summary) and "1 bad" in str(summary)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_order_and_content_do_not_depend_on_the_workers(folder, num_workers):
    wanted = good_rows(folder)[::-1] * 2
    decoded = list(decoding.decode_rows(wanted, num_workers=num_workers))
    assert [key for key, _ in decoded] == [row.key for row in wanted]
    for (_, example), row in zip(decoded, wanted, strict=True):
        clip = decode.decode(row.path)
        assert example["frames"] == clip.frames
        np.testing.assert_array_equal(example["audio"], clip.audio)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("die_1.mp4", r"the decoder ended by itself \(exit status 3\)"),
        ("crash_1.mp4", r"the decoder crashed \(SIGSEGV\)"),
        ("hog_1.mp4", r"needs more than 3 GiB \(memory_limit_bytes\)"),
        ("raise_1.mp4", "RuntimeError: two lines"),
        ("text.mp4", "not a media file, or damaged: .*"),
        ("nowhere.mp4", "no such file"),
    ],
)
def test_a_bad_row_costs_only_itself(folder, pool, tmp_path, name, reason):
    wanted = good_rows(folder)
    wanted[2:2] = rows(folder, name)
    path = tmp_path / "bad_files.csv"
    decoded = decoding.decode_rows(
        wanted, pool=pool, bad_files=path, function=MISBEHAVE
    )
    keys = [key for key, _ in decoded]
    assert keys == [row.key for row in good_rows(folder)]
    ((bad_path, bad_reason),) = report(path)
    assert bad_path == str(folder / name)
    assert re.fullmatch(reason, bad_reason)
    assert (decoded.summary.num_ok, decoded.summary.num_bad) == (6, 1)


def test_a_hung_worker_costs_only_its_row(folder, tmp_path):
    path = tmp_path / "bad_files.csv"
    wanted = rows(folder, "hang_1.mp4", "clip_0.mp4")
    with WorkerPool(1, time_limit_seconds=5.0) as pool:
        decoded = decoding.decode_rows(
            wanted, pool=pool, bad_files=path, function=MISBEHAVE
        )
        assert [key for key, _ in decoded] == ["clip_0.mp4"]
    ((_, reason),) = report(path)
    assert reason == "took longer than 5 s (time_limit_seconds)"


def test_many_deaths(folder, pool):
    wanted = rows(folder, *["die_1.mp4", "clip_0.mp4"] * 5)
    decoded = decoding.decode_rows(wanted, pool=pool, function=MISBEHAVE)
    assert [key for key, _ in decoded] == ["clip_0.mp4"] * 5
    assert decoded.summary.num_bad == 5


def test_strict_stops_at_the_first_bad_row(folder):
    wanted = rows(folder, "clip_0.mp4", "text.mp4", "clip_1.mp4")
    decoded = decoding.decode_rows(wanted, num_workers=2, strict=True)
    assert next(decoded)[0] == "clip_0.mp4"
    with pytest.raises(
        UserError, match=r"text\.mp4: not a media file.*strict"
    ) as error:
        next(decoded)
    assert "\n" not in str(error.value)


def test_bad_files_are_on_the_disk_at_once(folder, pool, tmp_path):
    path = tmp_path / "new" / "bad_files.csv"
    decoded = decoding.decode_rows(
        rows(folder, "text.mp4", "clip_0.mp4", "text.mp4"), pool=pool, bad_files=path
    )
    next(decoded)
    assert len(report(path)) == 1
    assert not list(decoded)
    assert len(report(path)) == 2


def test_the_part_of_a_file_is_in_the_report(folder, pool, tmp_path):
    path = tmp_path / "bad_files.csv"
    row = decoding.Row("late", folder / "clip_0.mp4", 3.0, 4.0)
    assert not list(decoding.decode_rows([row], pool=pool, bad_files=path))
    assert report(path)[0][1].endswith("the file ends at 1.00 s (clip 3-4 s)")


def test_a_full_disk_is_one_line(folder, pool, tmp_path, monkeypatch):
    path = tmp_path / "bad_files.csv"
    decoded = decoding.decode_rows(rows(folder, "text.mp4"), pool=pool, bad_files=path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoding, "open", full, raising=False)
    with pytest.raises(UserError, match=r"bad_files\.csv: the disk is full\. Free"):
        list(decoded)


def test_rows_are_drawn_as_they_are_needed(folder, pool):
    drawn = itertools.count()

    def endless():
        while True:
            next(drawn)
            yield from rows(folder, "clip_0.mp4")

    decoded = decoding.decode_rows(endless(), pool=pool)
    for _ in range(5):
        next(decoded)
    assert next(drawn) <= 5 + 4 * 2 + 1


def test_workers_do_not_import_tensorflow_or_the_main_script():
    with WorkerPool(1) as pool:
        (outcome,) = pool.map("media_files:imported_modules", [None])
    heavy = {
        "tensorflow",
        "keras",
        "tensorflow_datasets",
        "jax",
        "pytest",
        "PIL._imagingtk",
    }
    assert heavy.isdisjoint(outcome.value)


def test_a_worker_that_cannot_start_is_no_bad_row(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with pytest.raises(RuntimeError, match="could not start"):
        list(decoding.decode_rows(good_rows(folder), num_workers=1))


def test_a_function_that_cannot_be_imported_is_no_bad_row(folder, pool):
    with pytest.raises(RuntimeError, match="cannot use nowhere:decode"):
        list(
            decoding.decode_rows(
                good_rows(folder), pool=pool, function="nowhere:decode"
            )
        )


INTERRUPTED = """
import sys
from tfavmae.building import decoding
rows = (decoding.Row("x", "hang_1.mp4") for _ in range(100))
decode = "media_files:decode_or_misbehave"
decoded = decoding.decode_rows(rows, num_workers=2, function=decode)
print("started", flush=True)
next(decoded)
"""


def test_ctrl_c_ends_the_workers(folder):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    deadline = time.monotonic() + 30
    while len(children := children_of(process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - started < 10
    assert not any(is_alive(child) for child in children)


def children_of(pid) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return [int(line) for line in done.stdout.split()]


def is_alive(pid) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- interrupted passes ---------------------------------------------------------------

PREPARING = """
import sys
from tfavmae.building import decoding
from tfavmae.building.clip_cache import PreparedClips
from tfavmae.media import decode
path, folder = sys.argv[1:]
rows = [decoding.Row(str(i), f"{folder}/clip_{i % 6}.mp4") for i in range(60)]
prepared = PreparedClips(path, decode.Clip)
decoded = decoding.decode_rows(rows, num_workers=2, prepared=prepared)
for key, _ in decoded:
    print(key, flush=True)
"""


def test_a_pass_that_is_killed_again_and_again_loses_nothing(folder, pool, tmp_path):
    path = tmp_path / "kept" / "rows.clips"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for num_lines in (5, 20, 45):
        process = subprocess.Popen(
            [sys.executable, "-c", PREPARING, path, folder],
            env=environment,
            stdout=subprocess.PIPE,
        )
        lines = [int(process.stdout.readline()) for _ in range(num_lines)]
        process.kill()
        process.communicate()
        assert lines == list(range(num_lines))
    with open(path, "ab") as file:
        file.write(b"half a record")

    wanted = [decoding.Row(str(i), f"{folder}/clip_{i % 6}.mp4") for i in range(60)]
    resumed = decoding.decode_rows(
        wanted, pool=pool, prepared=PreparedClips(path, decode.Clip)
    )
    again = list(resumed)
    assert 45 <= resumed.num_taken_over <= 60
    assert resumed.summary.num_ok == 60
    for (key, example), (other_key, other) in zip(
        again, decoding.decode_rows(wanted, pool=pool), strict=True
    ):
        assert key == other_key and example["frames"] == other["frames"]
        np.testing.assert_array_equal(example["audio"], other["audio"])


def test_damaged_or_other_rows_are_not_taken_over(folder, pool, tmp_path):
    path = tmp_path / "rows.clips"

    def taken_over(wanted):
        decoded = decoding.decode_rows(
            wanted, pool=pool, prepared=PreparedClips(path, decode.Clip)
        )
        assert [key for key, _ in decoded] == [row.key for row in wanted]
        return decoded.num_taken_over

    wanted = good_rows(folder)
    assert taken_over(wanted) == 0
    assert taken_over(wanted) == 6
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert taken_over(wanted) in (2, 3)
    assert taken_over(wanted) == 6
    assert taken_over(wanted[:3] + wanted[4:]) == 3
    assert taken_over(wanted[:2]) == 2


def test_bad_rows_are_reported_again_without_decoding(folder, pool, tmp_path):
    wanted = rows(folder, "die_1.mp4", "clip_0.mp4")
    for taken_over in (0, 2):
        report_path = tmp_path / "bad_files.csv"
        decoded = decoding.decode_rows(
            wanted,
            pool=pool,
            bad_files=report_path,
            prepared=PreparedClips(tmp_path / "rows.clips", decode.Clip),
            function=MISBEHAVE,
        )
        assert len(list(decoded)) == 1 and len(report(report_path)) == 1
        assert decoded.num_taken_over == taken_over


def test_two_passes_cannot_share_their_kept_clips(folder, pool, tmp_path):
    first, second = (
        decoding.decode_rows(
            good_rows(folder),
            pool=pool,
            prepared=PreparedClips(tmp_path / "a.clips", decode.Clip),
        )
        for _ in range(2)
    )
    next(first)
    with pytest.raises(UserError, match="another build is running here"):
        next(second)
    first.close()
    assert next(
        decoding.decode_rows(
            good_rows(folder),
            pool=pool,
            prepared=PreparedClips(tmp_path / "a.clips", decode.Clip),
        )
    )
