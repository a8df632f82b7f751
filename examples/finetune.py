"""Fine-tune a classifier from a pretrained model, without the command line."""

import keras
import numpy as np

import tfavmae

INPUTS = {
    "audio": {"num_frames": 96, "num_mel_bins": 32},
    "video": {"height": 32, "width": 32, "tubelet_size": (1, 8, 8)},
}
pretrained = tfavmae.build_pretraining("cav_mae", "tiny", **INPUTS)  # or a run's model
classifier = tfavmae.build_classifier("cav_mae", "tiny", num_classes=2, **INPUTS)
report = classifier.load_pretrained(pretrained)  # or a path to a .keras file
print(len(report.copied), "weights copied; new:", report.missing_in_source)

# 32 clips: low tones with dark frames, high tones with bright ones.
rng = np.random.default_rng(0)
labels = np.arange(32) % 2
pitch = 300 + 900 * labels + rng.uniform(0, 100, 32)
audio = np.sin(2 * np.pi * pitch[:, None] * np.arange(16000) / 16000)
video = (
    60 + 120 * labels[:, None, None, None, None] + rng.normal(0, 20, (32, 1, 32, 32, 3))
)
clips = {
    "audio": (20000 * audio).astype("int16"),
    "video": video.clip(0, 255).astype("uint8"),
}

classifier.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = classifier.fit(clips, labels, batch_size=8, epochs=6, verbose=2).history
logits = classifier.predict(clips, verbose=0)["logits"]
accuracy = (logits.argmax(-1) == labels).mean()
print(f"accuracy on the training clips: {accuracy:.2f}")
