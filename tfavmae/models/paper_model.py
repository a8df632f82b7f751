"""The base class of every paper's model, and what a paper's file states."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras

from tfavmae.models.classifier import AudioVisualClassifier
from tfavmae.models.encoders import MODALITIES, AudioVisualEncoder
from tfavmae.models.inputs import AudioInput, VideoInput, as_input
from tfavmae.models.masked_autoencoder import MaskedAutoencoder

_NO_ARGUMENTS: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """How a paper turns its pretrained encoder into a classifier.

    Attributes:
        encoder: builds the encoder from `modality`, a size and `encoder_options`.
        encoder_options: further arguments of `encoder` and the paper's values.
        arguments: arguments of `model` that differ from its defaults.
        model: class of the classifier.
    """

    encoder: Callable[..., AudioVisualEncoder]
    encoder_options: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: _NO_ARGUMENTS
    )
    arguments: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: _NO_ARGUMENTS
    )
    model: type[AudioVisualClassifier] = AudioVisualClassifier


@dataclasses.dataclass(frozen=True)
class Published:
    """What a paper reports for a size, of both modalities if it has both.

    Attributes:
        figures: data sets and numbers; mAP on AudioSet and accuracy elsewhere, in per
            cent, after fine-tuning unless it says otherwise.
        source: where they are.
    """

    figures: str
    source: str


@dataclasses.dataclass(frozen=True)
class Starting:
    """How a paper starts from a transformer of another modality, or of images.

    Attributes:
        rows: what the rows of an image become in a spectrogram, and columns the other:
            `time`, or `frequency` as in CAV-MAE's code.
        frames: the kernel of a patch of frames, from that of an image: `repeat` it for
            each frame (MAViL), `average` them (I3D), or `central`, which sees the
            middle one alone (ViViT, MBT).
        layers: layers after the source's last start from its `last` (MAViL's code), or
            are `fresh`.
        audio_head: what predicts a spectrogram, from a head that predicts images:
            the first outputs, as CAV-MAE's `authors` have it, or `fresh`.
        absent_modality: one that no source has: `borrow` the weights of a source's
            only modality (AV-MAE, section 4.2; CAV-MAE's code), start from `scratch`
            (MAViL's audio in pretraining), or `refuse`.
        computes_positions: a frozen table is the model's own formula, whatever the
            source's is (AV-MAE, where tables are no weights).
    """

    rows: str = "time"
    frames: str = "average"
    layers: str = "fresh"
    audio_head: str = "fresh"
    absent_modality: str = "borrow"
    computes_positions: bool = False


class PaperModel(MaskedAutoencoder):
    """A masked autoencoder as one paper wires it.

    A paper is one file with one subclass, whose constructor chooses and wires the parts
    and whose class attributes state the rest. Defining the subclass makes it a preset.

    Class attributes:
        PRESET: name of the preset.
        INPUTS: dict of modality to the fields of `AudioInput` and `VideoInput` that
            differ from their defaults.
        SIZES: dict of size to constructor arguments.
        SHORT_CLIPS: dict of modality to what fills up a clip that is too short, see
            `tfavmae.data.clip_spec.ClipSpec`.
        MEAN_OVER_VIEWS: what the paper averages over several frames or windows of a
            clip, `logits` or `probabilities`.
        FINE_TUNING: a `FineTuning`.
        OTHER_CLASSIFIERS: others by name, which the option `classifier` chooses.
        PUBLISHED: dict of size to `Published`, for the sizes that the paper has.
        STARTING: a `Starting`.
    """

    PRESET: ClassVar[str]
    INPUTS: ClassVar[Mapping[str, Mapping[str, Any]]]
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]]
    SHORT_CLIPS: ClassVar[Mapping[str, str]] = {"audio": "pad", "video": "hold"}
    MEAN_OVER_VIEWS: ClassVar[str] = "probabilities"
    FINE_TUNING: ClassVar[FineTuning]
    OTHER_CLASSIFIERS: ClassVar[Mapping[str, FineTuning]] = {}
    PUBLISHED: ClassVar[Mapping[str, Published]] = {}
    STARTING: ClassVar[Starting] = Starting()

    # Arguments of `MaskedAutoencoder` that a paper's constructor hands on unseen.
    HANDED_ON: ClassVar[tuple[str, ...]] = (
        "allow_uncoupled",
        "augmentation",
        "decode_second_view",
        "seed",
        "teacher_output",
    )
    presets: ClassVar[dict[str, type["PaperModel"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        PaperModel.presets[cls.PRESET] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> "PaperModel":
        model = super().__new__(cls, *args, **kwargs)
        # `get_config` must return what the constructor was given, and the constructor
        # of a subclass that extends another paper sees only a part of it.
        bound = inspect.signature(cls.__init__).bind(model, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        del arguments["self"]
        handed_on = arguments.pop("kwargs")
        model._arguments = arguments | dict(sorted(handed_on.items()))
        return model

    @classmethod
    def option_names(cls) -> list[str]:
        """Arguments that `build_pretraining` takes for this paper."""
        return [*arguments_of(cls, PaperModel), *cls.HANDED_ON]

    @classmethod
    def fine_tuning(cls, classifier: str | None = None) -> FineTuning:
        """How a classifier is made of this paper's encoder.

        Args:
            classifier: one of `OTHER_CLASSIFIERS`, or `None` for `FINE_TUNING`.

        Raises:
            ValueError: for an unknown name; says which there are.
        """
        if classifier is None:
            return cls.FINE_TUNING
        if classifier not in cls.OTHER_CLASSIFIERS:
            raise ValueError(
                f"`classifier` of {cls.PRESET} must be one of "
                f"{sorted(cls.OTHER_CLASSIFIERS)} or left out. "
                f"Received: {classifier!r}."
            )
        return cls.OTHER_CLASSIFIERS[classifier]

    @classmethod
    def read_inputs(
        cls,
        audio: Mapping[str, Any] | AudioInput | None,
        video: Mapping[str, Any] | VideoInput | None,
        modalities: tuple[str, ...] = MODALITIES,
    ) -> dict[str, AudioInput | VideoInput]:
        """Dict of modality to its input: the given fields over those of the paper."""
        given = {"audio": audio, "video": video}
        return {
            m: given[m]
            if dataclasses.is_dataclass(given[m])
            else as_input(m, {**cls.INPUTS[m], **(given[m] or {})})
            for m in modalities
        }

    def get_config(self) -> dict[str, Any]:
        config = keras.Model.get_config(self)
        return config | {k: x for k, x in self._arguments.items() if k not in config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PaperModel":
        return cls(**config)


def arguments_of(kind: type, base: type) -> list[str]:
    """Constructor arguments of a class and of those that it extends, up to `base`."""
    classes = kind.__mro__[: kind.__mro__.index(base) + 1]
    own = [c.__init__ for c in classes if "__init__" in vars(c)]
    names = [name for init in own for name in inspect.signature(init).parameters]
    return [name for name in names if name not in ("self", "kwargs")]
