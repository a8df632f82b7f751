"""Embeddings into scikit-learn: a linear probe of a frozen model."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfavmae

# An untrained model, so that this runs in seconds; of a run or a preset:
#   vectors = tfavmae.load("runs/pretrain").embed("clip.mp4")
model = tfavmae.build_pretraining(
    "cav_mae",
    "tiny",
    audio={"num_frames": 96, "num_mel_bins": 32},
    video={"height": 32, "width": 32, "tubelet_size": (1, 8, 8)},
)

# 60 clips of three pitches, with frames of noise.
rng = np.random.default_rng(0)
labels = np.arange(60) % 3
pitch = np.array([220, 440, 880])[labels] * rng.uniform(0.97, 1.03, 60)
audio = np.sin(2 * np.pi * pitch[:, None] * np.arange(16000) / 16000)
clips = {
    "audio": (20000 * audio).astype("int16"),
    "video": rng.integers(0, 256, (60, 1, 32, 32, 3)).astype("uint8"),
}

outputs = model.predict(clips, batch_size=20, verbose=0)
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
scores = {
    modality: cross_val_score(probe, outputs[f"{modality}_embedding"], labels).mean()
    for modality in ("audio", "video")
}
print(scores)  # pitch is in the audio, and not in the frames
