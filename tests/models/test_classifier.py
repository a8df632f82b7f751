"""Heads, streams and missing modalities of classifiers."""

import keras
import numpy as np
import pytest
import scipy.special
import small_models as small

from tfavmae.layers.pooling import pool_segments, pool_tokens, segment_weights
from tfavmae.models.transfer import address

PRESENT = np.array([1, 0, 1, 0], "float32")


def mean(outputs, name):
    return np.mean(outputs[name], axis=1)


@pytest.mark.parametrize("stream", ["joint", "single", "concat", "sum"])
def test_streams_of_cav_mae(stream):
    """Table 2f: the joint stream, those of the modalities, or their sum."""
    model = small.classifier(stream=stream)
    outputs = model(small.batch_for(model))
    joint, single = (
        np.concatenate([outputs[f"{m}{name}"] for m in ("audio", "video")], axis=1)
        for name in ("_tokens", "_unimodal_tokens")
    )
    expected = {
        "joint": joint.mean(1),
        "single": single.mean(1),
        "sum": joint.mean(1) + single.mean(1),
        "concat": np.concatenate(
            [mean(outputs, f"{m}_unimodal_tokens") for m in ("audio", "video")], axis=1
        ),
    }[stream]
    np.testing.assert_allclose(outputs["representation"], expected, atol=1e-5)
    logits = model.head(model.head_norm(expected))
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)


FORMS = {
    "cav_mae": dict(name="cav_mae"),
    "streams": dict(name="cav_mae", stream="sum", missing_modality="joint"),
    "side by side": dict(name="cav_mae", stream="concat"),
    "single": dict(name="cav_mae", missing_modality="single"),
    "av_mae": dict(name="av_mae", pooling="modalities"),
    "attention": dict(name="av_mae", head={"tokens": "attention", "num_heads": 2}),
    "maximum": dict(name="av_mae", head={"tokens": "max"}),
    "mavil": dict(name="mavil", pooling="sum"),
    "bottleneck": dict(name="mavil", bottleneck={}),
    "seconds": dict(name="av_mae", num_segments=3),
    "cav_mae_sync": dict(
        name="cav_mae_sync", segment_frames=8, video=small.PICTURE | {"num_frames": 2}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_modality_is_absent_from_attention(form):
    """What a batch holds in its place changes nothing; its own tokens stay apart."""
    model = small.classifier(**FORMS[form])
    batch = small.batch_for(model)
    absent = (PRESENT == 0)[:, None, None, None, None]
    black = np.where(absent, 3.0, batch["video"]).astype("float32")
    told = {"video_present": PRESENT}
    ours = model(batch | told)["logits"]
    other = model(batch | told | {"video": black})["logits"]
    np.testing.assert_allclose(ours, other, atol=1e-5)
    whole = model(batch)["logits"]
    np.testing.assert_allclose(ours[::2], whole[::2], atol=1e-5)
    assert np.abs(ours - whole)[1::2].max() > 1e-3
    if form not in ("cav_mae_sync", "bottleneck"):
        alone = model({"audio": batch["audio"]})["logits"]
        np.testing.assert_allclose(ours[1::2], alone[1::2], atol=1e-5)


def test_a_long_clip_s_missing_tokens_are_absent_as_well():
    """More tokens than attention computes at once."""
    audio = dict(num_frames=200, num_mel_bins=32, patch_size=(4, 4))
    model = small.classifier(audio=audio)
    batch = small.batch_for(model)
    batch["audio_present"] = PRESENT
    loud = batch | {"audio": batch["audio"] + 5 * (PRESENT == 0)[:, None, None]}
    np.testing.assert_allclose(model(batch)["logits"], model(loud)["logits"], atol=1e-5)
    history = small.compiled(model).fit(batch, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_verbs_and_nouns_have_heads_of_their_own():
    model = small.classifier(num_classes={"verb": 3, "noun": 5}, label_smoothing=0.3)
    batch = small.batch_for(model)
    labels = {"verb": np.array([0, 2, 1, 1]), "noun": np.array([4, 0, 2, 3])}
    outputs = model(batch)
    assert {k: x.shape for k, x in outputs["logits"].items()} == {
        "verb": (4, 3),
        "noun": (4, 5),
    }
    losses = model.compute_losses(batch | labels, outputs)
    both = []
    for name, label in labels.items():
        logits = np.asarray(outputs["logits"][name], "float64")
        target = np.eye(logits.shape[1])[label] * 0.7 + 0.3 / logits.shape[1]
        loss = -(target * scipy.special.log_softmax(logits, axis=1)).sum(1).mean()
        np.testing.assert_allclose(losses[f"classification_{name}"], loss, rtol=1e-5)
        both.append(loss)
    np.testing.assert_allclose(losses["loss"], np.mean(both), rtol=1e-5)
    model.compile(optimizer="adam")
    history = model.fit(batch | labels, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert {"accuracy_verb", "accuracy_noun"} <= set(history)
    assert model.predict(batch, verbose=0)["logits"]["noun"].shape == (4, 5)


def test_segments_are_means_of_the_time_that_they_cover():
    np.testing.assert_allclose(
        segment_weights(2, 3), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]
    )
    np.testing.assert_allclose(segment_weights(5, 2).sum(1), 1)
    np.testing.assert_allclose(segment_weights(4, 4), np.eye(4))
    x = np.arange(12, dtype="float32").reshape(1, 6, 2)
    ours = pool_segments(keras.ops.convert_to_tensor(x), 3, 3)
    np.testing.assert_allclose(ours[0], x[0].reshape(3, 2, 2).mean(1))


@pytest.mark.parametrize("modality", ["audio", "video", "audio_video"])
def test_every_second_is_predicted(modality):
    """AVE: a class for each second of a clip."""
    model = small.classifier("av_mae", modality, num_segments=5)
    batch = small.batch_for(model)
    batch["label"] = np.random.default_rng(0).integers(3, size=(4, 5))
    outputs = model(batch)
    assert outputs["logits"].shape == (4, 5, 3)
    losses = model.compute_losses(batch, outputs)
    scores = scipy.special.log_softmax(np.asarray(outputs["logits"]), axis=-1)
    own = np.take_along_axis(scores, batch["label"][..., None], axis=-1)
    np.testing.assert_allclose(losses["classification"], -own.mean(), rtol=1e-5)
    hits = scores.argmax(-1) == batch["label"]
    np.testing.assert_allclose(losses["accuracy"], hits.mean(), rtol=1e-6)
    history = small.compiled(model).fit(batch, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_a_linear_probe_normalises_by_the_batch():
    """MAE's: batch norm without scale and offset before the dense layer."""
    model = small.classifier("av_mae", head={"norm": "batch"})
    norms = [address(v) for v in model.weights if "head_norm" in v.path]
    assert sorted(norms) == ["head_norm/moving_mean", "head_norm/moving_variance"]
    batch = small.batch_for(model)
    outputs = model(batch, training=True)
    x = np.asarray(outputs["representation"], "float64")
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
    logits = x @ np.asarray(model.head.kernel) + np.asarray(model.head.bias)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-3)


def test_an_attentive_probe_weighs_tokens():
    model = small.classifier("mavil", head={"tokens": "attention", "num_heads": 2})
    outputs = model(small.batch_for(model))
    x = np.concatenate([outputs["audio_tokens"], outputs["video_tokens"]], axis=1)
    pooler, pooled = model.pooler, []
    query = np.asarray(pooler.query).reshape(2, -1)
    key, value = (
        np.asarray(layer(x)).reshape(*x.shape[:2], 2, -1)
        for layer in (pooler.key, pooler.value)
    )
    scores = np.einsum("hk,bthk->bht", query, key) / np.sqrt(key.shape[-1])
    shares = scipy.special.softmax(scores, axis=-1)
    pooled = np.einsum("bht,bthk->bhk", shares, value).reshape(len(x), -1)
    expected = pooler.projection(pooled)
    np.testing.assert_allclose(outputs["representation"], expected, atol=1e-5)


def test_pooling_counts_what_is_there():
    x = np.array([[[1.0], [5.0], [9.0]], [[2.0], [4.0], [6.0]]], "float32")
    absent = np.array([[False, False, True], [True, True, True]])
    found = {how: pool_tokens(x, how, absent)[:, 0] for how in ("mean", "max", "sum")}
    np.testing.assert_allclose(found["mean"], [3, 0])
    np.testing.assert_allclose(found["sum"], [6, 0])
    assert found["max"][0] == 5 and found["max"][1] < -1e4


def test_fine_tuning_leaves_out_tokens_only_where_it_trains():
    """MAViL, table 9: 20 % of time and frequency, of space and time."""
    masking = {"audio": {"ratio": 0.2, "strategy": "time"}, "video": {"ratio": 0.25}}
    model = small.classifier("mavil", masking=masking)
    batch = small.batch_for(model)
    assert model(batch)["audio_tokens"].shape[1] == 15
    trained = model(batch, training=True)
    assert trained["audio_tokens"].shape[1] == 12
    assert trained["video_tokens"].shape[1] == 9
    first = np.asarray(trained["logits"])
    model.training_step.assign(1)
    assert np.abs(model(batch, training=True)["logits"] - first).max() > 1e-4


def test_the_norm_that_ends_pretraining_can_be_left_out():
    """MAE's fine-tuning normalises the mean over tokens instead."""
    options = {"num_layers": 1, "normalize_unimodal": False}
    model = small.classifier("mavil", "audio", **options)
    report = model.load_pretrained(small.pretraining("mavil"))
    assert not [v for v in model.weights if "audio_norm" in v.path]
    assert "encoder/audio_norm/gamma" in report.unused_in_source
    assert set(report.missing_in_source) == {
        "head/kernel",
        "head/bias",
        "head_norm/gamma",
        "head_norm/beta",
    }


def test_cross_entropy_is_chosen_apart_from_the_kind_of_label():
    """MAViL trains single labels with sigmoid cross-entropy (table 9)."""
    model = small.classifier("mavil", loss={"activation": "sigmoid"})
    assert model.activation == "sigmoid" and not model.multi_label
    batch = small.batch_for(model)
    outputs = model(batch)
    z, y = np.asarray(outputs["logits"]), np.eye(3)[batch["label"]]
    expected = np.mean(np.logaddexp(0, z) - z * y)
    losses = model.compute_losses(batch, outputs)
    np.testing.assert_allclose(losses["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(name="av_mae", stream="sum"), "need an encoder with streams"),
        (dict(stream="both"), "`stream` must be one of"),
        (dict(missing_modality="zero"), "`missing_modality` must be one of"),
        (dict(head={"norm": "group"}), "`head.norm` must be one of"),
        (dict(head={"pool": "mean"}), "Unknown `head` setting 'pool'"),
        (dict(loss={"activation": "relu"}), "`activation` must be one of"),
        (dict(loss={"per_modality": True}), "needs logits of each modality"),
        (dict(head={"tokens": "class_token"}), "needs one class token"),
        (dict(name="mavil", head={"tokens": "class_token"}), "gives each modality"),
        (dict(num_segments=4, head={"tokens": "max"}), "needs means of all tokens"),
        (dict(pooling="logits", stream="single"), "reads the joint stream"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(options, reason):
    with pytest.raises(ValueError, match=reason):
        small.classifier(**options)
