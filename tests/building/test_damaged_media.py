"""Files with flipped, lost or repeated bytes: no crash, no hang, no silent zeros."""

import random

import media_files
import numpy as np
import pytest

from tfavmae.building import decoding


def mutations(source: bytes, count: int, seed: int):
    """Copies with flipped bytes, removed, repeated or overwritten stretches."""
    chance = random.Random(seed)
    for index in range(count):
        data = bytearray(source)
        for _ in range(chance.choice([1, 3, 20, 200])):
            start = chance.randrange(len(data))
            length = chance.choice([1, 4, 64, 2000])
            action = index % 4
            if action == 0:
                data[start] ^= 1 << chance.randrange(8)
            elif action == 1:
                data[start : start + length] = chance.randbytes(length)
            elif action == 2 and len(data) > 4000:
                del data[start : start + length]
            elif len(data) < 200_000:
                data[start:start] = data[start : start + length]
        yield bytes(data)


def longest_silence(audio) -> float:
    """Share of a clip that its longest run of exact zeros takes."""
    loud = np.flatnonzero(audio)
    edges = np.concatenate([[-1], loud, [audio.size]])
    return (np.diff(edges).max() - 1) / audio.size


def check_damaged_copies(folder, suffix, count, seed):
    """Decodes damaged copies of one file; how many gave a clip."""
    source = media_files.write_clip(folder / f"source{suffix}", 2.0).read_bytes()
    wanted = []
    for index, data in enumerate(mutations(source, count, seed)):
        path = folder / f"{index}{suffix}"
        path.write_bytes(data)
        wanted.append(decoding.Row(str(index), path))
    bad_files = folder / "bad_files.csv"
    decoded = decoding.decode_rows(wanted, num_workers=2, bad_files=bad_files)
    for _, example in decoded:
        assert example["has_audio"] == (example["audio"].size > 0)
        assert example["has_video"] == (len(example["frames"]) > 0)
        assert example["has_audio"] or example["has_video"]
        if example["has_audio"]:
            assert longest_silence(example["audio"]) < 0.15
        for jpeg in example["frames"]:
            assert media_files.to_pixels(jpeg).size
    assert decoded.summary.num_ok + decoded.summary.num_bad == count
    reasons = bad_files.read_text()
    assert "crashed" not in reasons and "took longer" not in reasons, reasons
    assert "GiB" not in reasons and "by itself" not in reasons, reasons
    return decoded.summary.num_ok


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_damaged_files_neither_hang_nor_turn_silent(tmp_path, suffix):
    assert check_damaged_copies(tmp_path, suffix, count=16, seed=1) > 0


EVERY_KIND = (
    ".mp4", ".mov", ".webm", ".mkv", ".avi", ".ts", ".flv", ".m4a", ".mp3", ".wav",
    ".flac", ".ogg",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suffix", EVERY_KIND)
def test_five_hundred_damaged_files(tmp_path, suffix):
    num_ok = check_damaged_copies(tmp_path, suffix, count=45, seed=2)
    # Ogg drops a whole page at the first wrong bit, which is half of this file.
    assert num_ok > 0 or suffix == ".ogg"
