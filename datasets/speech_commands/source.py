"""Speech Commands v1 (Warden, 2018): the 12 classes of the keyword task."""

import math
import os
import wave
from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import AnnotatedClip, Annotations, read_lines
from tfavmae.building.file_templates import Template
from tfavmae.building.source import Source
from tfavmae.errors import UserError

KEYWORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
SILENCE, UNKNOWN = "_silence_", "_unknown_"
BACKGROUND = "_background_noise_"
# Of the six recordings this one is validation's, as in TFDS's builder of version 2.
_VALIDATION_NOISE = "running_tap.wav"
_CLIP_SECONDS, _HOP_SECONDS = 1.0, 0.5
_TEST_SET = "speech_commands_test_set_v0.01"


class SpeechCommands(Source):
    """65,000 one-second recordings: ten keywords, silence and unknown words."""

    NAME = "speech_commands"
    SELECTIONS = {"v0.01": "The archive speech_commands_v0.01, 12 classes."}
    FIELDS = ("file", "word")
    TEMPLATES = (Template("{file}", "video"),)
    INSTRUCTIONS = (
        "Unpack speech_commands_v0.01.tar.gz into a folder: it is both annotations "
        "and media. For the papers' test split unpack "
        f"{_TEST_SET}.tar.gz into its subfolder {_TEST_SET}."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        return {"label": [*KEYWORDS, SILENCE, UNKNOWN]}

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        held_out: dict[str, str] = {}
        for split, name in (("validation", "validation"), ("test", "testing")):
            path = annotations.file(f"{name}_list.txt", hint=self.INSTRUCTIONS)
            held_out |= {file: split for file, _ in read_lines(path)}
        has_test_set = (media / _TEST_SET).is_dir()
        recorded = [
            f"{word}/{name}"
            for word in _folders(media)
            if word not in (BACKGROUND, _TEST_SET)
            for name in _wav_files(media / word)
        ]
        # Files that are named in a list but do not exist: the audit will say so.
        missing = sorted(set(held_out).difference(recorded))
        for file in (*recorded, *missing):
            split = held_out.get(file, "train")
            if split != "test" or not has_test_set:
                yield _word(file, split)
        yield from _silence(media)
        if has_test_set:
            for word in _folders(media / _TEST_SET):
                for name in _wav_files(media / _TEST_SET / word):
                    yield _word(f"{_TEST_SET}/{word}/{name}", "test", prefix="test/")


def _folders(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise UserError(
            f"{folder}: has no folder of a word. Is it the unpacked archive?"
        )
    return names


def _wav_files(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder))
    return [n for n in names if n.endswith(".wav") and not n.startswith(".")]


def _word(file: str, split: str, prefix: str = "") -> AnnotatedClip:
    """The clip of a recorded word, whose folder is the word."""
    word = file.split("/")[-2]
    label = word if word in (*KEYWORDS, SILENCE, UNKNOWN) else UNKNOWN
    name = file.rpartition("/")[2]
    labels = {"label": label, "word": word, "speaker": name.partition("_nohash_")[0]}
    fields = {"file": file, "word": word}
    return AnnotatedClip(
        f"{prefix}{word}/{name}", split, fields, labels=labels, where=file
    )


def _silence(media: Path) -> Iterator[AnnotatedClip]:
    """Clips of one second of the recordings of noise, every half second."""
    folder = media / BACKGROUND
    if not folder.is_dir():
        raise UserError(
            f"{media}: has no {BACKGROUND}, from which the clips of silence are cut."
        )
    for name in _wav_files(folder):
        file = f"{BACKGROUND}/{name}"
        split = "validation" if name == _VALIDATION_NOISE else "train"
        try:
            with wave.open(os.fspath(folder / name)) as recording:
                seconds = recording.getnframes() / recording.getframerate()
            count = math.ceil((seconds - _CLIP_SECONDS) / _HOP_SECONDS)
        except (wave.Error, EOFError):
            count = 1  # the audit says what is wrong with the file
        for index in range(count):
            start = index * _HOP_SECONDS
            labels = {"label": SILENCE, "word": BACKGROUND, "speaker": ""}
            fields = {"file": file, "word": BACKGROUND}
            key, end = f"{file}@{start:g}", start + _CLIP_SECONDS
            yield AnnotatedClip(key, split, fields, start, end, labels, where=key)
