"""Every registered class comes back from its config and from a `.keras` file."""

import functools
import importlib
import inspect
import json
import pkgutil

import keras
import numpy as np
import pytest
import small_models as small
import text_sets

import tfavmae
from tfavmae.layers.attention import FusedGlorotUniform, MultiHeadSelfAttention
from tfavmae.layers.bottleneck import BottleneckFusion
from tfavmae.layers.embedding import Tokenizer
from tfavmae.layers.masking import TokenMasking
from tfavmae.layers.pixels import PixelScaling
from tfavmae.layers.pooling import AttentivePooling
from tfavmae.layers.positions import PositionEmbedding
from tfavmae.layers.spectrogram import LogMelSpectrogram
from tfavmae.layers.text_encoder import TextEncoder
from tfavmae.layers.transformer import (
    Dense,
    DropPath,
    LayerNorm,
    MultiLayerPerceptron,
    TransformerBlock,
    TransformerStack,
)
from tfavmae.models.base import AudioVisualModel
from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.encoders import AudioVisualEncoder
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.models.paper_model import PaperModel
from tfavmae.models.presets import papers
from tfavmae.objectives.base import Objective
from tfavmae.objectives.classification import Classification
from tfavmae.objectives.contrastive import (
    Contrast,
    InterModalContrast,
    IntraModalContrast,
)
from tfavmae.objectives.distillation import Distillation
from tfavmae.objectives.inpainting import Inpainting
from tfavmae.objectives.reconstruction import Reconstruction
from tfavmae.objectives.text import TextContrast
from tfavmae.training.optimizers import PathAdam, PathSGD
from tfavmae.training.schedules import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
)

ROOMS = ("layers", "objectives", "models")
# A program, and what needs an extra that may not be there.
NOT_IMPORTED = (
    "tfavmae.__main__",
    "tfavmae.building.beam",
    "tfavmae.building.dask_runner",
)
# Bases that nobody makes an object of.
BASES = (Objective, Contrast, PaperModel)

WIDTH = 8
TOKENS = {"audio": 3, "video": 5}
BLOCK = dict(num_heads=2, mlp_dim=12, layer_norm_epsilon=1e-5, approximate_gelu=True)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def tokens(width=WIDTH):
    return {m: random(2, n, width) for m, n in TOKENS.items()}


def orders():
    return {
        m: np.tile(np.arange(n, dtype="int32")[::-1], (2, 1))
        for m, n in {"audio": 6, "video": 10}.items()
    }


# --- An example of each: no argument is its default ----------------------------------

# Layer, width of what it is built for (`None`: nothing to build), arguments of a call.
LAYERS = {
    AttentivePooling: lambda: (AttentivePooling(4), WIDTH, (random(2, 3, WIDTH),)),
    BottleneckFusion: lambda: (
        BottleneckFusion(
            2,
            BLOCK,
            num_bottlenecks=3,
            share_blocks=True,
            first_layer=1,
            fuses_in_evaluation=False,
        ),
        WIDTH,
        (tokens(),),
    ),
    Tokenizer: lambda: (
        Tokenizer(
            8, (3, 2), {"kind": "learned", "class_token": True}, True, "lecun_normal"
        ),
        12,
        (random(2, 6, 12),),
    ),
    TokenMasking: lambda: (
        TokenMasking((6, 4), 0.6, "time_frequency", (0.2, 0.4), "masked"),
        None,
        (random(2, 24),),
    ),
    PixelScaling: lambda: (
        PixelScaling((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        None,
        (np.arange(2 * 4 * 4 * 3, dtype="uint8").reshape(2, 1, 4, 4, 3),),
    ),
    PositionEmbedding: lambda: (
        PositionEmbedding((3, 2), "learned", first_axis=0),
        WIDTH,
        (random(2, 6, WIDTH),),
    ),
    LogMelSpectrogram: lambda: (
        LogMelSpectrogram(20, 24, 8000, -4.0, 3.0),
        None,
        (random(2, 4000) / 8,),
    ),
    LayerNorm: lambda: (LayerNorm(1e-5), WIDTH, (random(2, 3, WIDTH),)),
    Dense: lambda: (Dense(12), WIDTH, (random(2, 3, WIDTH),)),
    MultiHeadSelfAttention: lambda: (
        MultiHeadSelfAttention(4),
        WIDTH,
        (random(2, 3, WIDTH),),
    ),
    MultiLayerPerceptron: lambda: (
        MultiLayerPerceptron(12, approximate_gelu=True),
        WIDTH,
        (random(2, 3, WIDTH),),
    ),
    DropPath: lambda: (DropPath(0.3, False, seed=3), None, (random(2, 3, WIDTH),)),
    TransformerBlock: lambda: (
        TransformerBlock(
            **BLOCK,
            streams=("joint", "audio"),
            drop_path_rate=0.2,
            drop_path_rescale=False,
        ),
        WIDTH,
        (random(2, 3, WIDTH),),
    ),
    TransformerStack: lambda: (
        TransformerStack(2, {**BLOCK, "drop_path_rate": 0.1}),
        WIDTH,
        (random(2, 3, WIDTH),),
    ),
    TextEncoder: lambda: (
        TextEncoder(**text_sets.TEXT | {"dropout_rate": 0.2}),
        WIDTH,
        (np.array([[0, 5, 2, 1]]), np.array([[1, 1, 1, 0]])),
    ),
    AudioVisualEncoder: lambda: (
        AudioVisualEncoder(
            1,
            2,
            BLOCK,
            ["audio", "video"],
            multi_stream=True,
            chain_streams=False,
            class_token=True,
            fuse_class_token=False,
            normalize_after_fusion=False,
        ),
        WIDTH,
        (tokens(),),
    ),
    AudioVisualDecoder: lambda: (
        AudioVisualDecoder(
            8,
            1,
            BLOCK,
            {"audio": (3, 2), "video": (2, 5, 1)},
            {"audio": 4, "video": 6},
            "shared",
            True,
            {"audio": {"kind": "sincos_1d"}},
            True,
            "zeros",
            0.5,
            "full",
        ),
        WIDTH,
        (tokens(), orders()),
    ),
}

MODELS = {
    "AVMAE": lambda: small.pretraining(
        "av_mae_inpainting",
        decoder={"inpainting_targets": "full"},
        modality_embedding=True,
    ),
    "CAVMAE": lambda: small.pretraining("cav_mae", contrast={"bidirectional": True}),
    "CAVMAESync": lambda: small.pretraining("cav_mae_sync"),
    "MAViL": lambda: small.pretraining("mavil_stage_2", bottleneck={}),
    "AudioVisualClassifier": lambda: small.classifier(
        "mavil",
        multi_label=True,
        label_smoothing=0.1,
        pooling="modalities",
        num_classes={"verb": 3, "noun": 4},
        head={"norm": "batch", "tokens": "attention", "num_heads": 2},
        loss={"activation": "softmax"},
        masking={"audio": {"ratio": 0.2}},
        drop_path={"rate": 0.1},
        normalize_unimodal=False,
    ),
    "MBT": lambda: small.mbt(streams_from={"audio": "video"}),
    "SyncClassifier": lambda: small.classifier("cav_mae_sync", segment_frames=8),
    "TextAlignedModel": lambda: text_sets.text_model(temperature=0.3),
    "AudioVisualModel": lambda: small.with_random_weights(
        built(AudioVisualModel, positions={"kind": "learned"}, modality_embedding=True)
    ),
    "MaskedAutoencoder": lambda: small.with_random_weights(
        MaskedAutoencoder(
            AudioVisualEncoder(1, 1, BLOCK),
            WIDTH,
            None,
            video=small.CLIP,
            audio=small.AUDIO,
            objectives=[InterModalContrast(0.2, 0.3, True)],
            seed=5,
            target_normalization="patch_biased",
        )
    ),
}

# A paper without an example above is one all the same.
MODELS |= {
    paper.__name__: functools.partial(small.pretraining, name)
    for name, paper in papers().items()
    if paper.__name__ not in MODELS
}

OBJECTIVES = (
    Classification(
        *("event", True, 0.2, "video", 0.7, "softmax", False, True, "verb"),
        smoothing="cav_mae_authors",
    ),
    InterModalContrast(0.2, 0.3, True),
    IntraModalContrast(0.4, 0.5, True),
    TextContrast(0.7, 0.8),
    Reconstruction(0.3, {"audio": 0.1, "video": 0.9}, True, False),
    Inpainting(0.3, {"audio": 0.0, "video": 1.0}, True, False),
    Distillation(0.6, {"audio": 1.0, "video": 2.0}),
)

OPTIMIZERS = {
    PathAdam: lambda: PathAdam(
        CosineSchedule(0.1, 20, 4, 0.01),
        decay=0.2,
        decay_paths=["kernel$"],
        decoupled=False,
        learning_rate_factors={"head/": 2.0},
    ),
    PathSGD: lambda: PathSGD(
        MultistepSchedule(0.1, 10, 2, 3, 0.5, 4),
        momentum=0.8,
        decay=0.1,
        decay_paths=["."],
    ),
}
OTHERS = (
    FusedGlorotUniform(3, seed=2),
    ConstantSchedule(0.1, 3),
    CosineSchedule(0.1, 20, 4, 0.01),
    MultistepSchedule(0.1, 10, 2, 3, 0.5, 4),
    *OBJECTIVES,
)


def built(model_class, **options):
    encoder = AudioVisualEncoder(1, 1, BLOCK)
    model = model_class(encoder, WIDTH, small.AUDIO, small.CLIP, seed=4, **options)
    model.build()
    return model


# --- Nothing is left out --------------------------------------------------------------


def modules(room):
    package = importlib.import_module(f"tfavmae.{room}")
    for module in pkgutil.iter_modules(package.__path__, f"tfavmae.{room}."):
        yield importlib.import_module(module.name)


def public_classes():
    """Classes of layers, objectives and models that a config may have to name."""
    kinds = (keras.Layer, keras.initializers.Initializer, Objective)
    for room in ROOMS:
        for module in modules(room):
            for name, x in vars(module).items():
                own = inspect.isclass(x) and x.__module__ == module.__name__
                if own and issubclass(x, kinds) and not name.startswith("_"):
                    yield x


def registered():
    """Names of the classes that the whole package registers."""
    for module in pkgutil.walk_packages(tfavmae.__path__, "tfavmae."):
        if module.name not in NOT_IMPORTED:
            importlib.import_module(module.name)
    names = keras.saving.get_custom_objects()
    return {x.removeprefix("tfavmae>") for x in names if x.startswith("tfavmae>")}


def test_every_registered_class_has_an_example_here():
    examples = {x.__name__ for x in (*LAYERS, *OPTIMIZERS, *map(type, OTHERS))}
    assert registered() == examples | set(MODELS)


def test_every_public_class_is_registered():
    classes = set(public_classes()) - set(BASES)
    assert len(classes) > 20
    names = registered()
    assert not [x.__name__ for x in classes if x.__name__ not in names]


@keras.saving.register_keras_serializable(package="tests")
class Holder(keras.Model):
    """A model that is one layer, or holds an object that is none."""

    def __init__(self, held, width=None, **kwargs):
        super().__init__(**kwargs)
        self.held = held
        self.width = width
        self.built = True
        if width is not None:
            held.build((None, None, width))

    def call(self, *arguments):
        return self.held(*arguments)

    def get_config(self):
        held = keras.saving.serialize_keras_object(self.held)
        held.pop("build_config", None)  # Built by the holder.
        return {**super().get_config(), "held": held, "width": self.width}

    @classmethod
    def from_config(cls, config):
        held = keras.saving.deserialize_keras_object(config.pop("held"))
        return cls(held, **config)


def as_json(x):
    return json.dumps(without_build(x.get_config()), sort_keys=True)


def without_build(config):
    """A config without the shapes that its parts have been built for."""
    if isinstance(config, dict):
        kept = {k: v for k, v in config.items() if k != "build_config"}
        return {k: without_build(v) for k, v in kept.items()}
    if isinstance(config, list):
        return [without_build(x) for x in config]
    return config


def from_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def check_config(x):
    """Back from JSON, and from the config itself."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(x)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(x)
    assert as_json(again) == as_json(x)
    assert as_json(type(x).from_config(x.get_config())) == as_json(x)
    return again


def arguments_of(x):
    """What the constructors of a class of ours take, by name."""
    classes = [c for c in type(x).__mro__ if "__init__" in vars(c)]
    own = [c for c in classes if c.__module__.startswith("tfavmae.")]
    names = [p for c in own for p in inspect.signature(c.__init__).parameters]
    return set(names) - {"self", "kwargs", "name", "args"}


def same(ours, theirs):
    ours, theirs = keras.tree.flatten(ours), keras.tree.flatten(theirs)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("kind", LAYERS, ids=lambda x: x.__name__)
def test_layers(kind, tmp_path):
    layer, width, arguments = LAYERS[kind]()
    assert arguments_of(layer) <= set(layer.get_config())
    check_config(layer)
    holder = Holder(layer, width)
    small.with_random_weights(holder)
    again = from_file(holder, tmp_path)
    assert type(again.held) is kind and as_json(again.held) == as_json(layer)
    same(again.weights, holder.weights)
    same(again(*arguments), holder(*arguments))


@pytest.mark.parametrize("name", MODELS)
def test_models(name, tmp_path):
    model = MODELS[name]()
    assert type(model).__name__ == name
    check_config(model)
    again = from_file(model, tmp_path)
    assert as_json(again) == as_json(model)
    paths = [[v.path.split("/", 1)[1] for v in x.weights] for x in (again, model)]
    assert paths[0] == paths[1]
    same(again.weights, model.weights)
    batch = small.batch_for(model)
    if name == "AudioVisualModel":
        found = [
            x.encode(x.tokenize(x.patchify(x.read(batch)))) for x in (again, model)
        ]
    else:
        found = [x(batch) for x in (again, model)]
    same(*found)


@pytest.mark.parametrize("x", OTHERS, ids=lambda x: type(x).__name__)
def test_other_objects(x, tmp_path):
    assert arguments_of(x) <= set(x.get_config())
    check_config(x)
    again = from_file(Holder(x), tmp_path).held
    assert type(again) is type(x) and as_json(again) == as_json(x)


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda x: x.__name__)
def test_optimizers(kind, tmp_path):
    check_config(OPTIMIZERS[kind]())
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, name="head")], name="model"
    )
    model.compile(OPTIMIZERS[kind](), loss="mse")
    model.fit(random(4, 2), random(4, 2), verbose=0)
    again = from_file(model, tmp_path).optimizer
    assert type(again) is kind and as_json(again) == as_json(model.optimizer)
    same(again.variables, model.optimizer.variables)
