"""MBT: multimodal bottleneck transformer (Nagrani et al., NeurIPS 2021).

AV-MAE fine-tunes its encoders as one (section 4.1); this follows the code of that
paper, of which the original is a case.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfavmae.models.classifier import AudioVisualClassifier
from tfavmae.models.encoders import AudioVisualEncoder, block_options
from tfavmae.models.options import modalities_of, settings
from tfavmae.models.paper_model import FineTuning

LAYER_NORM_EPSILON = 1e-6
FUSION = {
    "first_layer": 8,
    "num_bottlenecks": 4,
    "share_encoder": False,
    "fuses_in_evaluation": True,
}


def mbt_encoder(
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    stream_fusion: Mapping[str, Any] | None = None,
    modalities: Sequence[str] = ("audio", "video"),
    layer_norm_epsilon: float = LAYER_NORM_EPSILON,
    drop_path: Mapping[str, Any] | None = None,
) -> AudioVisualEncoder:
    """A stream of layers for each modality, and one layer norm that ends both.

    Args:
        num_layers, num_heads, mlp_dim, layer_norm_epsilon: of the layers.
        stream_fusion: see `MBT`.
        modalities: those that there is a stream for.
        drop_path: see `block_options`.
    """
    chosen = settings("stream_fusion", FUSION, stream_fusion)
    return AudioVisualEncoder(
        0,
        num_layers,
        # Scenic's GELU is the tanh approximation.
        block_options(num_heads, mlp_dim, layer_norm_epsilon, True, drop_path),
        modalities=modalities,
        fusion="bottleneck",
        num_bottlenecks=chosen["num_bottlenecks"],
        share_bottleneck_blocks=chosen["share_encoder"],
        bottleneck_options={
            "first_layer": chosen["first_layer"],
            "fuses_in_evaluation": chosen["fuses_in_evaluation"],
        },
        name="encoder",
    )


def mbt_classifier_encoder(modality: str, **options: Any) -> AudioVisualEncoder:
    """The encoder of an `MBT` for one modality or both; see `mbt_encoder`."""
    return mbt_encoder(modalities=modalities_of(modality), **options)


@keras.saving.register_keras_serializable(package="tfavmae")
class MBT(AudioVisualClassifier):
    """Classifies by two streams of layers that meet in bottleneck tokens.

    `build_classifier("av_mae", classifier="mbt")` builds it as AV-MAE fine-tunes it;
    `stream_fusion` says how the streams meet:

    - `first_layer`: number of the first layer that fuses; 0 is early fusion, the number
      of layers late fusion. The authors' is 16 of 24 (VGGSound) or 18 (AudioSet), and 8
      of 12 in MBT.
    - `num_bottlenecks`: 4; MBT's code adds one where the head reads class tokens. 0:
      each modality attends to the tokens of both.
    - `share_encoder`: the same layers for both modalities.
    - `fuses_in_evaluation`: `False` is MBT's `test_with_bottlenecks=False`.

    Weights of an `AVMAE` fit (AV-MAE, section 4.1, and the authors' code): separate
    encoders become the streams; a shared or early one becomes both; of a mid-fusion
    encoder the fusion layers end both streams. Bottleneck and head start afresh. Norms
    that end the encoders of separate streams are left out, as there.

    Args:
        streams_from: dict of a stream to the modality whose layers it starts from:
            `{"audio": "video"}` for both streams from a masked autoencoder of video.
            The stream of a shared encoder is `both`.
        Others: see `AudioVisualClassifier`.
    """

    expected_new = (*AudioVisualClassifier.expected_new, r"encoder/joint_norm/.*")

    def __init__(
        self,
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        num_classes: int | Mapping[str, int],
        streams_from: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.streams_from = dict(streams_from or {})
        super().__init__(encoder, hidden_dim, num_classes, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "streams_from": self.streams_from}


# The authors' head: the mean of each modality, one dense layer for both, whose kernel
# starts at 0, and the mean of their logits; losses of each modality, summed over
# classes where a clip may have several.
FINE_TUNING = FineTuning(
    mbt_classifier_encoder,
    encoder_options={"stream_fusion": FUSION, "drop_path": None},
    arguments={
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "positions": {"kind": "sincos_1d"},
        "projection_initializer": "lecun_normal",
        "modality_stddev": 0.0,
        "pooling": "logits",
        "head": {"norm": "none", "kernel_initializer": "zeros"},
        "loss": {"per_modality": True, "average_classes": False},
    },
    model=MBT,
)
