"""A made-up run, so that every part of a report has something to show."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tfavmae.report import page
from tfavmae.report.reconstructions import Reconstruction, Triptych
from tfavmae.serving.verification import Verification
from tfavmae.tasks import classification, retrieval

CLASSES = [
    "disc of wood", "disc of glass", "ring of metal", "ring of rubber",
    "cross", "arrow", "star", "crescent",
    "cube rolling", "cube falling", "cone rolling", "cone falling",
]  # fmt: skip
NUM_CLIPS = 60
RATE = 16000


def make_clip(index, num_frames=8, size=64):
    """A ball that bounces, and a tone at each bounce."""
    rng = np.random.default_rng(index)
    label = index % len(CLASSES)
    grid = np.linspace(-1, 1, size)
    x, y = np.meshgrid(grid, grid)
    background = (
        60 + 90 * rng.random(3) + 22 * np.sin(9 * x * rng.random() + 7 * y)[..., None]
    )
    color, radius = 255 * rng.random(3), 0.16 + 0.22 * rng.random()
    frames = np.repeat(background[None], num_frames, 0)
    for i in range(num_frames):
        height = 0.55 * abs(np.sin(np.pi * (i / 4 + rng.random() * 0.02)))
        disc = (x - 0.9 * np.sin(i / 3 + index)) ** 2 + (y - 0.6 + height) ** 2
        frames[i][disc < radius**2] = color
    t = np.arange(RATE) / RATE
    sound = 0.01 * rng.normal(size=RATE)
    for start in (0.0, 0.5):
        after = np.clip(t - start, 0, None)
        sound += (
            (t >= start)
            * 0.6
            * np.exp(-9 * after)
            * np.sin(2 * np.pi * (220 + 90 * label) * after)
        )
    return page.Clip(
        name=f"clip_{index:04d}.mp4",
        video=np.clip(frames, 0, 255).astype("uint8"),
        audio=(20000 * sound).astype("int16"),
        sample_rate_hz=RATE,
        label=CLASSES[label],
    )


def make_embeddings(noise=1.6):
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(NUM_CLIPS, 12))
    present = np.ones(NUM_CLIPS, bool)
    present[-2:] = False
    return {
        "example_index": np.arange(NUM_CLIPS),
        "audio_present": present,
        "video_present": np.ones(NUM_CLIPS, bool),
        "audio_embedding": audio,
        "video_embedding": audio + noise * rng.normal(size=audio.shape),
    }


def make_classification():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(12), 25)
    skill = {
        "audio": np.repeat([3.0, 0.6, 0.9], 4),
        "video": np.repeat([0.5, 3.2, 0.9], 4),
        "audio_video": np.repeat([2.7, 3.0, 2.6], 4),
    }
    results = {}
    for name, by_class in skill.items():
        scores = rng.normal(size=(len(labels), 12))
        scores += by_class[labels, None] * np.eye(12)[labels]
        result = classification.score(scores, labels, CLASSES)
        modalities = tuple(name.split("_"))
        results[name] = dataclasses.replace(result, modalities=modalities)
    return results


def make_history(num_steps=600, every=10):
    rng = np.random.default_rng(2)
    rows = []
    for step in range(every, num_steps + 1, every):
        progress = step / num_steps
        row = {
            "step": step,
            "kind": "train",
            "loss": 0.6 + np.exp(-4 * progress) + 0.02 * rng.normal(),
            "reconstruction_audio": 0.5 + 0.4 * np.exp(-5 * progress),
            "reconstruction_video": 0.4 + 0.5 * np.exp(-3 * progress),
            "contrast": 3.4 - 2 * progress**2 + 0.05 * rng.normal(),
            "contrast_accuracy_audio_to_video": 0.6 * progress**2,
            "learning_rate": 1e-3 * (1 - progress),
        }
        if step % 100 == 0:
            noisy = {f"val_{k}": 1.04 * v for k, v in row.items() if k not in _PLAIN}
            rows.append({"step": step, "kind": "epoch", **noisy})
        rows.append(row)
    return rows


_PLAIN = ("step", "kind", "learning_rate")


def make_triptych(picture):
    height, width = picture.shape[:2]
    rng = np.random.default_rng(height + width)
    hidden = np.kron(rng.random((height // 8, width // 8)) < 0.75, np.ones((8, 8)))
    alpha = (255 * (1 - hidden)).astype("uint8")[..., None]
    blurred = (picture.astype(float) * 0.8 + 30).astype("uint8")
    rebuilt = np.where(hidden[..., None] > 0, blurred, picture)
    seen = np.concatenate([picture * (alpha > 0), alpha], -1).astype("uint8")
    fraction = float(hidden.mean())
    return Triptych(picture, seen, rebuilt, fraction, rebuilt / 255, picture / 255)


def make_report():
    embeddings = make_embeddings()
    rng = np.random.default_rng(3)
    spectrogram = 12 + 10 * rng.random((64, 192, 1)) * np.array([1.0, 0.3, 1.4])
    for k in range(1, 7):
        fade = np.exp(-(np.arange(192) % 96) / 30)[:, None]
        spectrogram[64 - 9 * k : 66 - 9 * k] += 220 * fade * [1, 0.5, 0.3]
    spectrogram = spectrogram.clip(0, 255).astype("uint8")
    clips = {i: make_clip(i) for i in range(NUM_CLIPS)}
    silent = dataclasses.replace(make_clip(70), audio=None, name="silent.mp4")
    blind = dataclasses.replace(make_clip(71), video=None, name="radio.wav")
    return page.Report(
        title="SoundingShapes: from a folder of videos to a served model",
        subtitle="A CAV-MAE of 1.2 million parameters, pretrained without labels on "
        "2 000 short clips, then fine-tuned, exported and checked, on two CPU cores.",
        histories={"pretraining": make_history(), "fine-tuning": make_history(200)},
        reconstructions=[
            Reconstruction(
                clips[i].name,
                make_triptych(spectrogram),
                make_triptych(clips[i].video[0]),
            )
            for i in range(3)
        ],
        retrieval=retrieval.evaluate(embeddings, num_resamples=200),
        retrieval_examples=retrieval.examples(embeddings, num_queries=3),
        clips=clips,
        classification=make_classification(),
        ceilings={"audio": 0.66, "video": 0.66, "audio_video": 0.98},
        dataset=page.DatasetSummary(
            name="SoundingShapes (demo)",
            description="Generated clips of objects that move, collide and sound.",
            splits=[
                page.Split("train", 2000, 1.11, 40, 38),
                page.Split("validation", 560, 0.31, 12, 10),
            ],
            bad_files=[("holiday/broken.mp4", "moov atom not found: truncated file")],
            facts={"clip length": "2 s", "frames per clip": "16"},
            examples=[*(clips[i] for i in range(10)), silent, blind],
        ),
        verification=Verification(
            pathlib.Path("export/1"), {"classify/logits": 4.8e-7}, 1e-4
        ),
        commands=[
            page.Command(
                "Pretrain",
                "tfavmae pretrain --config configs/cav_mae/pretrain_demo.yaml "
                "--workdir runs/demo/pretrain",
            ),
            page.Command(
                "Serve",
                "docker run -p 127.0.0.1:8501:8501 \\\n"
                '  -v "$PWD/runs/demo/export/shapes:/models/shapes" \\\n'
                "  -e MODEL_NAME=shapes tensorflow/serving",
                "The exported model was run here with TensorFlow itself, not with TF "
                "Serving's own binary.",
            ),
        ],
        environment={"TensorFlow": "2.20.0", "Keras": "3.15.1", "CPU": "2 cores"},
        durations={
            "data": 61.0,
            "pretraining": 341.0,
            "retrieval": 9.0,
            "fine-tuning": 150.5,
            "export": 22.0,
        },
        notes=["Made-up numbers: this page exists to test the page."],
    )


@pytest.fixture(scope="session")
def report():
    return make_report()
