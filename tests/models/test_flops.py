"""Floating-point operations of models, counted from shapes."""

import keras
import pytest

from tfavmae.models import flops, presets

SMALL = {
    "audio": {"num_frames": 64, "num_mel_bins": 32},
    "video": {"num_frames": 2, "height": 48, "width": 48},
    "num_layers": 1,
    "num_fusion_layers": 1,
    "decoder": {"num_layers": 1},
}


@pytest.fixture(scope="module")
def model():
    return presets.build_pretraining("mavil", "tiny", **SMALL)


def test_the_products_of_a_known_model():
    class TwoProducts(keras.Model):
        inputs_by_modality = {}

        def call(self, inputs, training=False):
            left, right = keras.ops.ones((2, 3, 4)), keras.ops.ones((2, 4, 5))
            product = keras.ops.matmul(left, right)
            return keras.ops.matmul(product, keras.ops.ones((5, 6)))

    expected = 2 * (2 * 3 * 5 * 4) + 2 * (2 * 3 * 6 * 5)
    assert flops.forward_flops(TwoProducts()) == expected


def test_a_forward_pass_without_masks_costs_more(model):
    masked = flops.forward_flops(model, masked=True)
    assert masked < flops.forward_flops(model, masked=False)


def test_a_backward_pass_costs_twice_a_forward_pass(model):
    forward, training = flops.training_flops(model)
    assert forward <= flops.forward_flops(model, masked=True) * 1.01
    # But for the spectrogram, which has no gradient.
    layer = model.audio_front_end
    spectrum = 2 * (layer.fft_length // 2 + 1)
    spectrogram = 2 * layer.num_frames * layer.frame_length * spectrum
    learned = forward - spectrogram
    assert 2.5 * learned < training - spectrogram <= 3 * learned


def test_the_products_of_a_batch_are_those_of_its_clips(model):
    """As many operations for each clip, in products that say their shapes and type."""
    of_one, of_three = (flops.training_products(model, n) for n in (1, 3))
    assert flops.total(of_one) == flops.training_flops(model)[1]
    # Contrast compares each clip with all: 3 x 3 cosines instead of 1.
    assert flops.total(of_three) == pytest.approx(3 * flops.total(of_one), rel=1e-3)
    # The MLP of the audio encoder: both views' kept tokens and class tokens of 3 clips.
    tokens = 2 * 3 * (model.masking("audio").num_kept + 1)
    assert of_three[flops.Product(1, tokens, 128, 512, "float32")] >= 1


def test_a_product_counts_if_its_result_is_used():
    import tensorflow as tf

    @tf.function
    def product(x):
        unused = tf.ones((4, 3)) @ x
        return {"used": tf.ones((5, 3)) @ x, "unused": unused}["used"]

    graph = product.get_concrete_function(tf.TensorSpec((3, 7))).graph
    assert flops.total(flops.products_of_graph(graph)) == 2 * 5 * 3 * 7
