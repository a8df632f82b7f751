"""Text beside audio and video: embeddings, contrast, files."""

import keras
import numpy as np
import optional
import pytest
import small_models as small
import text_sets
from text_sets import TEXT, text_model

from tfavmae.data.text import Tokenizer, Vocabulary
from tfavmae.models.keras_file import load_model
from tfavmae.models.text_aligned import build_text_aligned
from tfavmae.models.transfer import address
from tfavmae.objectives.text import TextContrast
from tfavmae.training.checkpoint import collect_variables

optional.need("tensorflow_text")
VOCABULARY = text_sets.small_vocabulary()
TEXTS = ["a dog", "two dogs bark", "rain", "12"]


def batch_with_text(model):
    return small.batch_for(model) | Tokenizer(VOCABULARY, 12)(TEXTS)


@pytest.mark.parametrize("modality", ["audio_video", "audio", "video"])
@pytest.mark.parametrize("name", ["av_mae", "cav_mae", "mavil"])
def test_all_embeddings_lie_in_one_space(name, modality):
    model = text_model(name, modality)
    outputs = model(batch_with_text(model))
    names = [f"{m}_embedding" for m in (*modality.split("_"), "text")]
    assert model.embedding_names == names
    for key in names:
        assert outputs[key].shape == (4, 6) and outputs[key].dtype == "float32"
    without = {k: x for k, x in batch_with_text(model).items() if "text" not in k}
    assert "text_embedding" not in model(without)


def test_a_modality_is_embedded_by_itself():
    """Nothing of the video reaches the audio, as search by one of them needs."""
    model = text_model()
    batch = batch_with_text(model)
    both = np.array(model(batch)["audio_embedding"])
    batch["video"] = batch["video"] + 1
    np.testing.assert_array_equal(np.array(model(batch)["audio_embedding"]), both)


def test_the_text_encoder_is_kerashubs_roberta():
    hub = optional.need("keras_hub")
    model = text_model()
    backbone = hub.models.RobertaBackbone(
        *(len(VOCABULARY.tokens), 1, 2, 8, 12), dropout=0.0, max_sequence_length=20
    )
    backbone.set_weights(model.text_encoder.backbone.get_weights())
    rows = Tokenizer(VOCABULARY, 12)(TEXTS)
    found = model.text_encoder(rows["text_ids"], rows["text_mask"])
    inputs = {"token_ids": rows["text_ids"], "padding_mask": rows["text_mask"]}
    expected = np.array(backbone(inputs))[:, 0]
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6)


def test_padding_changes_nothing():
    model = text_model()
    short, long = (Tokenizer(VOCABULARY, n)(TEXTS[:2]) for n in (8, 12))
    short, long = (
        np.array(model.embed_text(x["text_ids"], x["text_mask"])) for x in (short, long)
    )
    # "two dogs bark" has more than six tokens.
    np.testing.assert_allclose(short[0], long[0], atol=1e-5)
    assert np.abs(short[1] - long[1]).max() > 1e-3


def test_the_loss_is_both_directions_of_both_modalities():
    """By hand: text to audio, audio to text, and the same of video, a quarter each."""
    model = text_model(temperature=0.5)
    batch = batch_with_text(model) | {"text_present": np.ones(4, "float32")}
    batch["audio_present"] = np.array([1, 1, 0, 1], "float32")
    outputs = model(batch)
    losses = model.compute_losses(batch, outputs)
    vectors = {
        m: np.array(outputs[f"{m}_embedding"]) for m in ("audio", "video", "text")
    }
    lengths = {m: np.linalg.norm(x, axis=1, keepdims=True) for m, x in vectors.items()}
    vectors = {m: x / lengths[m] for m, x in vectors.items()}
    total = 0.0
    for m, rows in (("audio", [0, 1, 3]), ("video", [0, 1, 2, 3])):
        own = [_info_nce(vectors["text"][rows], vectors[m][rows], 0.5)]
        own.append(_info_nce(vectors[m][rows], vectors["text"][rows], 0.5))
        found = float(losses[f"text_contrast_{m}"])
        assert found == pytest.approx(np.mean(own), rel=1e-5)
        total += np.mean(own) / 2
    assert float(losses["loss"]) == pytest.approx(total, rel=1e-5)


def _info_nce(query, key, temperature):
    logits = query @ key.T / temperature
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -np.diag(logs).mean()


def test_clips_without_a_caption_take_no_part():
    objective = TextContrast(1.0, 0.1)
    rng = np.random.default_rng(0)
    outputs = {f"{m}_embedding": rng.normal(size=(4, 5)) for m in ("audio", "text")}
    outputs = {k: x.astype("float32") for k, x in outputs.items()}
    present = np.array([1, 0, 1, 1], "float32")
    found = objective.terms({"text_present": present}, outputs)["text_contrast_audio"]
    kept = {k: x[present > 0] for k, x in outputs.items()}
    expected = objective.terms({}, kept)["text_contrast_audio"]
    assert float(found.denominator) == 3
    assert float(found.mean()) == pytest.approx(float(expected.mean()), rel=1e-6)
    counts = objective.counts({"text_present": present})
    assert float(counts["text_contrast_audio"]) == 3


def test_it_learns_which_text_is_which():
    keras.utils.set_random_seed(0)
    # Of a narrow projection, too many rectified units never learn.
    model = text_model(modality="audio", projection_dim=64)
    batch = batch_with_text(model)
    small.compiled(model)
    first = model.train_on_batch(batch, return_dict=True)["loss"]
    for _ in range(120):
        last = model.train_on_batch(batch, return_dict=True)["loss"]
        model.reset_metrics()
    assert last < 0.4 * first


def test_accumulation_gives_the_same_step():
    weights = []
    for parts in (1, 2):
        model = text_model(modality="audio")
        model.text_encoder.backbone.embeddings_dropout.rate = 0.0
        model.compile(keras.optimizers.SGD(0.1))
        model.set_step_options(gradient_accumulation_steps=parts)
        # Dropout draws anew in each pass; without it they must agree.
        for layer in model.text_encoder.backbone._flatten_layers():
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        model.train_on_batch(batch_with_text(model))
        weights.append({address(v): np.array(v) for v in model.trainable_variables})
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=2e-5, err_msg=name)


def test_a_file_holds_model_and_vocabulary(tmp_path):
    model = text_model()
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    encoder = again.text_encoder
    assert Vocabulary.of_text(encoder.vocabulary, encoder.merges) == VOCABULARY
    batch = batch_with_text(model)
    found, expected = again(batch), model(batch)
    for name in model.embedding_names:
        np.testing.assert_array_equal(np.array(found[name]), np.array(expected[name]))
    addresses = [address(v) for v in model.weights]
    assert len(set(addresses)) == len(addresses)
    assert "text_projection/kernel" in addresses
    own = [address(v) for v in model.text_encoder.weights]
    assert own and all(a.startswith("text_encoder/") for a in own)
    collect_variables(model)


def test_sizes_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="`max_tokens` must be 3 to"):
        build_text_aligned("mavil", "tiny", "audio", TEXT | {"max_tokens": 30})
    with pytest.raises(ValueError, match="did you mean 'projection_dim'"):
        build_text_aligned("mavil", "tiny", "audio", TEXT, projection_dims=3)
