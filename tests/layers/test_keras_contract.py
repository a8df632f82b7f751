"""Keras' own contract for layers and for classes that are saved by their config."""

import keras
import pytest
from keras.src.testing import TestCase

from tfavmae.layers.attention import MultiHeadSelfAttention
from tfavmae.layers.embedding import Tokenizer
from tfavmae.layers.masking import TokenMasking
from tfavmae.layers.pixels import PixelScaling
from tfavmae.layers.pooling import AttentivePooling
from tfavmae.layers.positions import PositionEmbedding
from tfavmae.layers.spectrogram import LogMelSpectrogram
from tfavmae.layers.transformer import (
    Dense,
    DropPath,
    LayerNorm,
    MultiLayerPerceptron,
    TransformerBlock,
    TransformerStack,
)
from tfavmae.objectives.classification import Classification
from tfavmae.objectives.contrastive import InterModalContrast, IntraModalContrast
from tfavmae.objectives.distillation import Distillation
from tfavmae.objectives.inpainting import Inpainting
from tfavmae.objectives.reconstruction import Reconstruction
from tfavmae.training.optimizers import PathAdam, PathSGD
from tfavmae.training.schedules import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
)

BLOCK = {"num_heads": 2, "mlp_dim": 12}
TOKENS = (2, 3, 8)
# Constructor arguments, shape of the input, shape of the output. Encoder, decoder and
# bottleneck take dicts of tokens, which Keras' test would unpack as arguments:
# `test_serialization.py` has those.
LAYERS = {
    AttentivePooling: ({"num_heads": 2}, TOKENS, (2, 8)),
    Dense: ({"units": 6}, (2, 3, 4), (2, 3, 6)),
    DropPath: ({"rate": 0.3}, TOKENS, TOKENS),
    LayerNorm: ({"epsilon": 1e-5}, TOKENS, TOKENS),
    LogMelSpectrogram: ({"num_frames": 20, "num_mel_bins": 16}, (2, 3600), (2, 20, 16)),
    MultiHeadSelfAttention: ({"num_heads": 2}, TOKENS, TOKENS),
    MultiLayerPerceptron: ({"mlp_dim": 12}, TOKENS, TOKENS),
    PixelScaling: ({"mean": (0.5,) * 3}, (2, 1, 4, 4, 3), (2, 1, 4, 4, 3)),
    PositionEmbedding: ({"grid": (3, 2)}, (2, 6, 8), (2, 6, 8)),
    Tokenizer: ({"hidden_dim": 8, "grid": (3, 2)}, (2, 6, 10), (2, 6, 8)),
    TokenMasking: ({"grid": (3, 2)}, (2, 6), (2, 6)),
    TransformerBlock: (BLOCK, TOKENS, TOKENS),
    TransformerStack: ({"num_layers": 2, "block": BLOCK}, TOKENS, TOKENS),
}
OBJECTS = (
    Classification(
        *("event", True, 0.2, "video", 0.7, "softmax", False, True, "verb"),
        smoothing="cav_mae_authors",
    ),
    InterModalContrast(0.2, 0.3, True),
    IntraModalContrast(0.4, 0.5, True),
    Reconstruction(0.3, {"audio": 0.1, "video": 0.9}, True, False),
    Inpainting(0.3, {"audio": 0.0, "video": 1.0}, True, False),
    Distillation(0.6, {"audio": 1.0, "video": 2.0}),
    ConstantSchedule(0.1, 3),
    CosineSchedule(0.1, 20, 4, 0.01),
    MultistepSchedule(0.1, 10, 2, 3, 0.5, 4),
    PathAdam(1e-3, decay=0.2, decay_paths=["kernel$"]),
    PathSGD(1e-3, momentum=0.8),
)


@pytest.fixture
def contract():
    case = TestCase()
    case.setUp()
    yield case
    case.tearDown()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda x: x.__name__)
def test_keras_contract_of_layers(layer, contract):
    arguments, input_shape, output_shape = LAYERS[layer]
    contract.run_layer_test(
        layer,
        init_kwargs=arguments,
        input_shape=input_shape,
        expected_output_shape=output_shape,
        expected_num_losses=0,
        # A permutation has no gradient.
        run_training_check=layer is not TokenMasking,
    )


@pytest.mark.parametrize("x", OBJECTS, ids=lambda x: type(x).__name__)
def test_keras_contract_of_classes_with_a_config(x, contract):
    contract.run_class_serialization_test(x)


@pytest.mark.parametrize("layer", [LogMelSpectrogram, PixelScaling])
def test_front_ends_stay_in_float32_whatever_they_are_asked(layer):
    made = layer(**LAYERS[layer][0], dtype="mixed_bfloat16")
    assert made.compute_dtype == "float32" and not made.autocast
    assert (
        keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(made)
        ).get_config()
        == made.get_config()
    )
