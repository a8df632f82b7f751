"""The front ends against torchaudio's and torchvision's numbers, on any signals.

Each file below `fbank/` and `dataloader/` of the golden numbers says itself what went
in: see the README beside them.
"""

import numpy as np
from golden_files import below, close, each_file, load

from tfavmae.data import resizing
from tfavmae.layers import augment, mixup
from tfavmae.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScaling
from tfavmae.layers.spectrogram import (
    STATISTICS,
    LogMelSpectrogram,
    mel_banks,
    window,
)

# In a pure tone the bins beside it are what remains of it after cancellation: the
# reference itself is off by 2e-2 there.
MEAN_TOLERANCE, TOLERANCE, TONE_TOLERANCE = 1e-3, 1e-3, 2e-2
MEAN, STD = STATISTICS["cav_mae_audioset"]


def same_spectrogram(ours, theirs, tolerance):
    close(ours, theirs, tolerance)
    assert np.abs(ours - theirs).mean() < MEAN_TOLERANCE


def log_mel(waveforms, num_frames, mean=MEAN, std=STD):
    """One clip's spectrogram `(frames, 128)`; waveform int16 or float."""
    layer = LogMelSpectrogram(num_frames, 128, mean=mean, std=std)
    return np.asarray(layer(waveforms[None]))[0]


def tolerance_of(path):
    return TONE_TOLERANCE if "sweep" in path.stem else TOLERANCE


# --- fbank ----------------------------------------------------------------------------


@each_file("fbank", "*.npz", without=("mel_and_window.npz",))
def test_filter_banks(path):
    golden = load(path)
    waveform, theirs = golden["pcm16"], golden["fbank"]
    raw = log_mel(waveform, len(theirs), mean=0.0, std=1.0)
    same_spectrogram(raw, theirs, tolerance_of(path))
    same_spectrogram(raw[::10], golden["fbank_f64_every10"], tolerance_of(path))
    close(np.mean(waveform / 32768), golden["mean"], 1e-7)
    normalised = log_mel(waveform, 1024)[golden["model_input_rows"]]
    close(normalised, golden["model_input"], tolerance_of(path) / 4.4849)


@each_file("fbank", "mel_and_window.npz")
def test_mel_banks_window_and_stereo(path):
    golden = load(path)
    theirs = golden["mel_banks"]  # without the row of the Nyquist frequency
    banks = mel_banks(128, 16000, 512)[:-1].T
    close(banks, theirs, 5e-5)
    is_filled = banks.max(axis=1) > 0
    peaks = banks.argmax(axis=1) * 31.25  # Hz, in steps of a bin
    distance = np.abs(peaks - golden["center_freqs"])[is_filled]
    assert is_filled.sum() == 127 and distance.max() < 31.25
    close(window("hann", 400), golden["window"], 1e-6)
    first = first_channel(golden["stereo_pcm16"].T)
    ours = log_mel(first, len(golden["stereo_fbank"]), mean=0.0, std=1.0)
    same_spectrogram(ours, golden["stereo_fbank"], TONE_TOLERANCE)  # three tones


def first_channel(pcm):
    """The authors' reading of a file: the mean is that of all channels."""
    waveform = pcm / np.float32(32768)
    waveform = waveform - waveform.mean()
    return waveform[:, 0] if waveform.ndim == 2 else waveform


# --- dataloader -----------------------------------------------------------------------


def clip_names(golden):
    return sorted(name.removeprefix("pcm_") for name in golden if name[:4] == "pcm_")


def frame_of(golden, clip, frame):
    """uint8 frame; a missing frame falls back to an earlier one, as theirs do."""
    earlier = (f"image_{clip}_{k}" for k in range(frame, -1, -1))
    return golden[next(name for name in earlier if name in golden)]


def shown(frame):
    """What the pipeline makes of a stored frame, normalised, channels first."""
    (top, left, height, width), scale, shift = resizing.centre(
        *frame.shape[:2], (224, 224)
    )
    part = frame[None, top : top + height, left : left + width]
    pixels = resizing.resample(part, scale, shift, (224, 224), "bicubic")
    scaling = PixelScaling(IMAGENET_MEAN, IMAGENET_STD)
    return np.asarray(scaling(pixels[None]))[0, 0].transpose(2, 0, 1)


def same_frame(ours, theirs):
    """Within 1 grey level on 99.9 % of the values; theirs may have every 4th only."""
    stride = ours.shape[1] // theirs.shape[1]
    level = 1 / (255 * np.array(IMAGENET_STD, "float32"))[:, None, None]
    difference = np.abs(ours[:, ::stride, ::stride] - theirs) / level
    assert (difference < 1.01).mean() >= 0.999
    assert difference.max() < 4


def multi_hot(golden, clip):
    return (golden[f"eval/{clip}/label"] > 0.5).astype("float32")


@each_file("dataloader", "*.npz", entries="eval.*|label_.*|pcm_.*|image_.*")
def test_evaluation_clips(path):
    golden = load(path)
    for clip in clip_names(golden):
        theirs = below(golden, f"eval/{clip}/")
        ours = log_mel(first_channel(golden[f"pcm_{clip}"]), 1024)
        same_spectrogram(ours[::4], theirs["fbank_every4"], TOLERANCE)
        close(ours[-40:], theirs["fbank_tail"], TOLERANCE)
        same_frame(shown(frame_of(golden, clip, 5)), theirs["image"])
    for name in (n for n in golden if n.startswith("eval_t")):
        length = int(name.split("/")[0].removeprefix("eval_t"))
        clip = name.split("/")[1]
        ours = log_mel(first_channel(golden[f"pcm_{clip}"]), length)
        same_spectrogram(ours[::4], golden[name], TOLERANCE)
    for name in (n for n in golden if n.startswith("eval_frame")):
        frame, clip, _ = name.removeprefix("eval_frame").split("/")
        same_frame(shown(frame_of(golden, clip, int(frame))), golden[name])
    for name in (n for n in golden if n.startswith("label_smooth")):
        same_smooth_label(golden, name)


def same_smooth_label(golden, name):
    smoothing = float(name.split("/")[0].removeprefix("label_smooth"))
    hot = multi_hot(golden, name.split("/")[1])[None]
    ours = mixup.smooth_targets(hot, smoothing, np.array([False]))[0]
    close(ours, golden[name], 1e-6)


def mixed_pairs(golden):
    """`(first, second, what theirs have)`."""
    names = {name.split("/")[0] for name in golden if name.startswith("mixup_")}
    return [(*name.removeprefix("mixup_"), below(golden, f"{name}/")) for name in names]


@each_file("dataloader", "*.npz", entries="mixup_.*")
def test_mixed_clips(path):
    golden = load(path)
    for first, second, theirs in mixed_pairs(golden):
        share = theirs["lambda"].astype("float32")[None]
        waveforms = [first_channel(golden[f"pcm_{c}"]) for c in (first, second)]
        size = max(map(len, waveforms))
        padded = [np.pad(w, (0, size - len(w)))[None] for w in waveforms]
        counts = [np.array([len(w)], "int32") for w in waveforms]
        mixed = mixup.mix_waveforms(padded[0], counts[0], share, padded[1], counts[1])
        layer = LogMelSpectrogram(1024, 128, mean=MEAN, std=STD)
        ours = layer(mixed, num_samples=counts[0])
        same_spectrogram(np.asarray(ours)[0, ::4], theirs["fbank_every4"], TOLERANCE)
        frames = [shown(frame_of(golden, c, 5))[None] for c in (first, second)]
        frame = np.asarray(mixup.mix(frames[0], share, frames[1]))[0]
        same_frame(frame, theirs["image_every4"])
        targets = [multi_hot(golden, c)[None] for c in (first, second)]
        target = mixup.mix(targets[0], share, targets[1])
        target = mixup.smooth_targets(target, 0.1, np.array([True]))
        close(target[0], theirs["label"], 1e-6)


@each_file("dataloader", "*.npz", entries="train_aug/.*")
def test_augmented_spectrogram(path):
    golden = load(path)
    theirs = below(golden, "train_aug/")
    u = theirs["torch_rand_scalars"].astype("float32")[:, None]
    x = log_mel(first_channel(golden["pcm_a"]), 1024)[None]
    silence = 5.081 / 4.4849  # 0 before normalisation
    x = augment.mask_band(x, u[0], u[1], 48, 2, silence)
    x = augment.mask_band(x, u[2], u[3], 192, 1, silence)
    level = theirs["np_rand"].astype("float32")[None] / 10
    x = augment.add_uniform_noise(x, theirs["noise_uniform"][None], level)
    x = np.asarray(augment.roll_frames(x, theirs["roll"].astype("int32")[None]))[0]
    same_spectrogram(x, theirs["fbank"], TOLERANCE)
