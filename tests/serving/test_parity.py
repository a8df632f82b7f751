"""Every signature of every kind of model answers as the Keras model does."""

import numpy as np
import pytest
import small_models

from tfavmae.serving import c_loader, reconstruction, verification
from tfavmae.serving.export import export
from tfavmae.serving.verification import verify_export

BATCH_SIZES = (1, 2, 7, 32)
HEADS = {"verb": 2, "noun": 3}
MODELS = {
    "classifier": lambda: small_models.classifier("cav_mae", num_classes=HEADS),
    "pretrained": lambda: small_models.pretraining("cav_mae"),
}
SLOW_MODELS = {
    "events": lambda: small_models.classifier("cav_mae", num_segments=5),
    "multi-label": lambda: small_models.classifier("cav_mae", multi_label=True),
    "audio": lambda: small_models.classifier("mavil", "audio"),
    "video": lambda: small_models.classifier("av_mae", "video"),
    "mbt": small_models.mbt,
    "sync classifier": lambda: small_models.classifier(
        "cav_mae_sync", **small_models.MODELS["cav_mae_sync"]
    ),
    "mavil classifier": lambda: small_models.classifier("mavil"),
    "av_mae": lambda: small_models.pretraining("av_mae"),
    "av_mae_inpainting": lambda: small_models.pretraining("av_mae_inpainting"),
    "av_siam": lambda: small_models.pretraining("av_siam"),
    "cav_mae_sync": lambda: small_models.pretraining("cav_mae_sync"),
    "mavil": lambda: small_models.pretraining("mavil"),
    "student": lambda: small_models.pretraining("mavil_stage_2"),
    "one mask": lambda: small_models.pretraining(
        "cav_mae",
        num_joint_layers=2,
        multi_stream=False,
        joint_ratio=0.6,
        contrast={"weight": 0},
    ),
}


WITH_DECODER = {
    *("av_mae", "av_mae_inpainting", "av_siam"),
    *("mavil", "student", "one mask"),
}


def clips(model, count):
    """Noise and rough pictures; some clips are shorter than the model's."""
    rng, found = np.random.default_rng(count), {}
    inputs = model.inputs_by_modality
    if "audio" in inputs:
        length = round(inputs["audio"].clip_seconds * inputs["audio"].sample_rate_hz)
        steps = rng.integers(-(2**15), 2**15, (count, length))
        found["audio"] = steps.astype("int16")
        found["audio_samples"] = length - 320 * (np.arange(count, dtype="int32") % 3)
        is_heard = np.arange(length) < found["audio_samples"][:, None]
        found["audio"] = np.where(is_heard, found["audio"], 0).astype("int16")
    if "video" in inputs:
        video = inputs["video"]
        shape = (count, video.num_frames, video.height, video.width, 3)
        found["video"] = rng.integers(0, 256, shape, "uint8")
    return found


def check_parity(model, folder, monkeypatch, with_decoder=False):
    """Exports a model and compares all answers at all batch sizes."""
    path = export(model, folder / "tiny", with_decoder=with_decoder)
    loaded = c_loader.SavedModel(path)
    asked = []

    def run(path, inputs):
        found = {}
        for name, one in loaded.signatures.items():
            asked.append(name)
            answers = loaded.run(name, {k: inputs[k] for k in one.inputs})
            found |= {f"{name}/{k}": x for k, x in answers.items()}
        return found

    # The process of its own is tested elsewhere; here it would be loaded four times.
    monkeypatch.setattr(verification, "_run_through_c_api", run)
    for size in BATCH_SIZES:
        report = verify_export(
            path,
            model,
            clips(model, size),
            num_clips=size,
            with_decoder=with_decoder,
            tolerance=1e-5,
        )
        names = {key.split("/")[0] for key in report.max_abs_difference}
        assert names == set(loaded.signatures) == set(asked)
    return names


@pytest.mark.parametrize("case", sorted(MODELS))
def test_every_signature_is_the_model(case, tmp_path, monkeypatch):
    # All ratios of `reconstruct` are compared in test_reconstruction.py.
    names = check_parity(MODELS[case](), tmp_path, monkeypatch)
    assert ("classify_encoded" in names) == (case == "classifier")
    assert "similarity_encoded" in names


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(SLOW_MODELS))
def test_every_signature_of_every_model(case, tmp_path, monkeypatch):
    model = SLOW_MODELS[case]()
    with_decoder = reconstruction.can_reconstruct(model)
    assert with_decoder == (case in WITH_DECODER)
    check_parity(model, tmp_path, monkeypatch, with_decoder)
