"""Models by name and size."""

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from tfavmae import models
from tfavmae.errors import UserError, did_you_mean, shown
from tfavmae.models.base import AudioVisualModel
from tfavmae.models.classifier import AudioVisualClassifier
from tfavmae.models.paper_model import PaperModel, arguments_of


@functools.cache
def papers() -> dict[str, type[PaperModel]]:
    """Dict of preset name to the model of that paper.

    Every module of `tfavmae.models` that defines a `PaperModel` is found, so that a new
    paper is a new file and nothing else.
    """
    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"{models.__name__}.{module.name}")
    return PaperModel.presets


def classes() -> dict[str, type]:
    """Dict of name to class: the models of all papers, and their classifiers."""
    found: dict[str, type] = {}
    for model in papers().values():
        recipes = (model.FINE_TUNING, *model.OTHER_CLASSIFIERS.values())
        for kind in (model, *(x.model for x in recipes)):
            found[kind.__name__] = kind
    return found


def paper(name: str) -> type[PaperModel]:
    """The model class of a preset.

    Raises:
        ValueError: for an unknown name; says which are known.
    """
    return _look_up(papers(), "model", name)


def _look_up(table: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in table:
        raise ValueError(
            f"Unknown {what} {shown(name)}; {did_you_mean(name, table)} "
            f"Known: {', '.join(table)}."
        )
    return table[name]


def check_options(known: Iterable[str], options: Iterable[str]) -> None:
    """Raises a `ValueError` that names the nearest argument for an unknown option."""
    known = list(known)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise ValueError(f"Unknown model option {option!r}; {hint}")


def pretraining_arguments(
    name: str, size: str = "base", **options: Any
) -> dict[str, Any]:
    """Constructor arguments of a pretraining model: the options over the size's."""
    model = paper(name)
    sizes = _look_up(model.SIZES, f"size of {name}", size)
    check_options(model.option_names(), options)
    grouped = [k for k, x in sizes.items() if isinstance(x, Mapping) and options.get(k)]
    merged = {k: {**sizes[k], **options[k]} for k in grouped}
    return {**sizes, **options, **merged}


def build_pretraining(
    name: str = "cav_mae", size: str = "base", **options: Any
) -> PaperModel:
    """A pretraining model.

    Args:
        name: of a paper's preset, such as `av_mae`, `cav_mae` or `mavil`; see `papers`.
        size: of that paper, such as `tiny`, `base` or `large`.
        **options: arguments of the model's class, over those of the size.

    Raises:
        ValueError: for an unknown name, size or option; says what is known.
    """
    return paper(name)(**pretraining_arguments(name, size, **options), name=name)


def build_classifier(
    name: str = "cav_mae",
    size: str = "base",
    modality: str = "audio_video",
    classifier: str | None = None,
    **options: Any,
) -> AudioVisualClassifier:
    """A classifier around the encoder of the pretraining model of the same name.

    Args:
        name, size: as of `build_pretraining`.
        modality: `audio`, `video` or `audio_video`.
        classifier: which one, where the paper has several: `mbt` of `av_mae`.
        **options: arguments of the classifier and of the encoder;
            `layer_norm_epsilon` is of both.

    Raises:
        ValueError: for an unknown name, size or option; says what is known.
    """
    model = paper(name)
    recipe = model.fine_tuning(classifier)
    sizes = dict(_look_up(model.SIZES, f"size of {name}", size))
    sizes.pop("decoder", None)
    sizes |= recipe.encoder_options
    sizes |= {k: options.pop(k) for k in tuple(options) if k in sizes}
    arguments = {**recipe.arguments, **options}
    for k, own in recipe.arguments.items():
        if isinstance(own, Mapping) and options.get(k):
            arguments[k] = {**own, **options[k]}
    if "layer_norm_epsilon" in arguments:
        sizes["layer_norm_epsilon"] = arguments["layer_norm_epsilon"]
    check_options([*arguments_of(recipe.model, AudioVisualModel), *sizes], options)
    for m in ("audio", "video"):
        arguments[m] = {**model.INPUTS[m], **(options.get(m) or {})}
    hidden_dim = sizes.pop("hidden_dim")
    return recipe.model(
        recipe.encoder(modality=modality, **sizes),
        hidden_dim,
        modality=modality,
        **arguments,
        name="classifier",
    )


def preset_names() -> dict[str, tuple[str, str]]:
    """Dict of `cav_mae_base` and its like to paper and size."""
    return {
        f"{name}_{size}": (name, size)
        for name, model in papers().items()
        for size in model.SIZES
    }


def unknown_preset(name: str) -> str:
    """The message about a name that is neither a size of ours nor a folder."""
    hint = did_you_mean(name, preset_names())
    return (
        f"{shown(name)}: neither a folder nor one of our presets; {hint} "
        "`tfavmae presets` lists them."
    )


def build_preset(
    kind: type[AudioVisualModel], preset: str, **options: Any
) -> AudioVisualModel:
    """The model of a size of ours, without weights.

    Args:
        kind: class of the model: a paper's, or a classifier's.
        preset: one of `preset_names`.
        **options: as of `build_pretraining` and `build_classifier`.

    Raises:
        UserError: the preset is of another class.
        ValueError: for an unknown option; says what is known.
    """
    name, size = preset_names()[preset]
    if not issubclass(kind, AudioVisualClassifier):
        check_class(kind, paper(name), preset)
        return build_pretraining(name, size, **options)
    model = build_classifier(name, size, **_classifier_of(kind, name), **options)
    check_class(kind, type(model), preset)
    return model


def _classifier_of(kind: type[AudioVisualClassifier], name: str) -> dict[str, str]:
    """The option `classifier`, where it follows from the class: MBT."""
    others = paper(name).OTHER_CLASSIFIERS.items()
    return dict([("classifier", other) for other, x in others if x.model is kind][:1])


def check_class(kind: type, found: type, preset: str) -> None:
    """Checks that a preset is of the class that its user named.

    Raises:
        UserError: it is of another; names that.
    """
    if not issubclass(found, kind):
        name = found.__name__
        raise UserError(
            f"{preset}: is of the class {name}, not {kind.__name__}; call "
            f"{name}.from_preset."
        )
