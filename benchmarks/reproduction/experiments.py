"""The runs of the reproduction: tiny models of the three papers and their recipes.

A run is known by its name; several claims share it. `config_of` makes the config of one
run and seed, `digest_of` a fingerprint of everything that its result depends on.
"""

import copy
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

# Sizes and rates were chosen on the clips of seed 0; these are others.
SHAPES_SEED = 1
DATASET = f"sounding_shapes/reproduction_seed{SHAPES_SEED}"
DIGITS = "clip_folder/digits"
HELD_OUT_DIGITS = "clip_folder/digits_held_out"
NUM_CLASSES = 12
# Clips with both modalities that retrieval searches: the more, the harder.
GALLERY_SIZE = 500
RETRIEVED = 10  # R@10
# Labelled clips of a class, unless a name says otherwise.
LABELS_PER_CLASS = 10

# What is changed of SoundingShapes `demo`, the smaller `standard`: clips of 1 s with
# larger objects, and an ambience too soft to be told by, which contrast would learn
# first and no class depends on. Models of this size learn it within a minute.
SHAPES: Mapping[str, Any] = {
    "name": "reproduction",
    "clip_seconds": 1.0,
    "min_radius": 0.22,
    "max_radius": 0.38,
    "min_speed": 1.0,
    "max_speed": 2.4,
    "min_impacts": 2,
    "max_impacts": 8,
    "num_ambiences": 2,
    "ambience_match": 0.5,
    "ambience_level_db": -60.0,
    "num_train_clips": 3000,
}
# Of a frame as models read it, in pixels.
FRAME_SIZE = 32

ENCODER = {"hidden_dim": 96, "num_heads": 3, "mlp_dim": 384, "num_layers": 3}
DECODER = {"hidden_dim": 64, "num_heads": 2, "mlp_dim": 256, "num_layers": 1}
_AUDIO = {
    "num_frames": 96,
    "num_mel_bins": 64,
    "mean": -8.0,
    "std": 6.0,
    "variant": "kaldi",
    "patch_size": [16, 16],
}
_BATCH_SIZE = 32
_FRAME = {"num_frames": 1, "tubelet_size": [1, 8, 8]}
_FILM = {"num_frames": 4, "tubelet_size": [2, 8, 8]}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, for every seed.

    Args:
        name: short and unique.
        config: of the experiment, without what depends on seed and folders.
        source: name of the run whose weights it starts from.
        teacher: name of the run that teaches it.
        seed_shift: added to the seed; a student must not begin as its teacher did.
        measures: whether retrieval is measured; of a classifier it is accuracy.
        dataset: that is evaluated.
        split: that is evaluated.
    """

    name: str
    config: dict[str, Any]
    source: str | None = None
    teacher: str | None = None
    seed_shift: int = 0
    retrieves: bool = False
    dataset: str = DATASET
    split: str = "validation"

    @property
    def is_classifier(self) -> bool:
        """Whether it is a fine-tuning."""
        return self.config["stage"] == "finetune"

    @property
    def needs(self) -> list[str]:
        """Names of the runs that must be finished before."""
        return [name for name in (self.source, self.teacher) if name]


def experiments(
    num_steps: int, num_finetuning_steps: int, with_digits: bool
) -> dict[str, Experiment]:
    """All runs by name, each after those that it needs.

    Args:
        num_steps: of a pretraining.
        num_finetuning_steps: of a fine-tuning.
        with_digits: whether the recordings of spoken digits are there.
    """
    runs = [*_cav_mae(), *_av_mae(), *_mavil()]
    if with_digits:
        runs += _digits()
    found = {}
    for run in runs:
        steps = num_finetuning_steps if run.is_classifier else num_steps
        trainer = {
            "num_steps": steps,
            # A run takes seconds: one that was killed begins again.
            "checkpoint_every_steps": steps,
            "keep_checkpoints": 1,
            "log_every_steps": 50,
        }
        optimizer = {
            # From a lower one, pretrained weights, which are larger, hardly move.
            "learning_rate": 2e-3,
            "warmup_steps": steps // 10,
            "beta_2": 0.999 if run.is_classifier else 0.95,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
        }
        config = {**run.config, "optimizer": optimizer, "trainer": trainer}
        found[run.name] = dataclasses.replace(run, config=config)
    return found


def config_of(
    run: Experiment,
    all_runs: Mapping[str, Experiment],
    seed: int,
    work: pathlib.Path,
) -> dict[str, Any]:
    """The config of a run, with its seed and folders."""
    config = copy.deepcopy(run.config)
    config["trainer"]["seed"] = seed + run.seed_shift
    config["data"]["data_dir"] = str(work / "data")
    if run.source:
        config["initialize_from"] = str(
            folder_of(all_runs[run.source], all_runs, seed, work)
        )
    if run.teacher:
        teacher = folder_of(all_runs[run.teacher], all_runs, seed, work)
        config["teacher_from"] = [str(teacher)]
    return config


def digest_of(run: Experiment, all_runs: Mapping[str, Experiment], seed: int) -> str:
    """Fingerprint of all that the result of a run depends on, but for the code."""
    facts = dataclasses.asdict(run) | {"seed": seed, "shapes": SHAPES}
    facts |= {"gallery": GALLERY_SIZE}
    facts["needs"] = [digest_of(all_runs[name], all_runs, seed) for name in run.needs]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(
    run: Experiment, all_runs: Mapping[str, Experiment], seed: int, work: pathlib.Path
) -> pathlib.Path:
    """Work directory of a run."""
    name = f"{run.name.replace('/', '_')}_{seed}_{digest_of(run, all_runs, seed)}"
    return work / "runs" / name


def _run(
    name: str,
    paper: str,
    options: Mapping[str, Any],
    *,
    modality: str = "audio_video",
    data: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Experiment:
    """A run; one with a `label` in `data` is a fine-tuning."""
    data = {
        "dataset": DATASET,
        "clip_seconds": 1.0,
        "batch_size": _BATCH_SIZE,
        "validation_split": None,
        **(data or {}),
    }
    film = _FRAME if paper == "cav_mae" else _FILM
    model = {
        "name": paper,
        "size": "tiny",
        "modality": modality,
        "audio": _AUDIO,
        "video": {"height": FRAME_SIZE, "width": FRAME_SIZE, **film},
        "options": {**ENCODER, **options},
    }
    stage = "finetune" if "label" in data else "pretrain"
    config = {"stage": stage, "model": model, "data": data}
    return Experiment(name, config, **fields)


def _labels(
    per_class: int = LABELS_PER_CLASS, num_classes: int = NUM_CLASSES
) -> dict[str, Any]:
    number = per_class * num_classes
    return {
        "label": "label",
        "num_train_examples": number,
        "batch_size": min(_BATCH_SIZE, number),
    }


# --- CAV-MAE ---


def _cav_mae() -> list[Experiment]:
    def pretrained(
        name: str,
        options: Mapping[str, Any],
        ratio: float = 0.5,
        strategy: str = "random",
        **data: Any,
    ) -> Experiment:
        masking = {
            "audio": {"ratio": ratio, "strategy": strategy},
            "video": {"ratio": ratio},
        }
        # The paper's weight of 0.01 is for weeks of training.
        contrast = {"weight": 1.0, "temperature": 0.07, "bidirectional": True}
        given = {"decoder": DECODER, "contrast": contrast, "masking": masking}
        return _run(
            f"cav_mae/{name}",
            "cav_mae",
            {**given, **options},
            data=data,
            retrieves=True,
        )

    runs = [
        pretrained("both", {}),
        pretrained("contrast", {"reconstruction_weight": 0.0}),
        pretrained("reconstruction", {"contrast": {"weight": 0.0}}),
        pretrained("shuffled", {}, pairing="shuffled"),
        *[pretrained(f"ratio_{100 * r:.0f}", {}, ratio=r) for r in (0.25, 0.75, 0.9)],
        *[
            pretrained(f"{s}_75", {}, ratio=0.75, strategy=s)
            for s in ("time", "frequency", "time_frequency")
        ],
    ]
    sources = ("both", "contrast", "reconstruction", "shuffled", None)
    tuned = [(source, LABELS_PER_CLASS) for source in sources]
    tuned += [(source, n) for n in (2, 100) for source in ("both", None)]
    return runs + [
        _run(
            f"cav_mae/{source or 'scratch'}/labels_{number}",
            "cav_mae",
            {},
            data=_labels(number),
            source=source and f"cav_mae/{source}",
        )
        for source, number in tuned
    ]


# --- AV-MAE ---


def _av_mae() -> list[Experiment]:
    base = {
        "num_fusion_layers": 1,
        "decoder": {**DECODER, "sharing": "shared"},
        "masking": {"audio": {"ratio": 0.5}, "video": {"ratio": 0.75}},
    }
    fusions = ("early", "shared", "separate", "mid")
    options: dict[str, dict[str, Any]] = {f: {"fusion": f} for f in fusions}
    options["two_maes"] = {
        "fusion": "separate",
        "decoder": {**DECODER, "sharing": "separate"},
        "allow_uncoupled": True,
    }
    options["inpainting"] = {
        "fusion": "early",
        "reconstruction_weight": 0.0,
        "inpainting": {"weight": 1.0},
    }
    runs = [
        _run(f"av_mae/{name}", "av_mae", {**base, **own})
        for name, own in options.items()
    ]
    mbt = {
        "classifier": "mbt",
        "stream_fusion": {"first_layer": 2, "num_bottlenecks": 4},
    }
    for source in (*options, None):
        runs.append(
            _run(
                f"av_mae/{source or 'scratch'}/mbt",
                "av_mae",
                mbt,
                data=_labels(),
                source=source and f"av_mae/{source}",
            )
        )
    for fusion in fusions:
        runs.append(
            _run(
                f"av_mae/{fusion}/own_encoder",
                "av_mae",
                {"fusion": fusion, "num_fusion_layers": 1},
                data=_labels(),
                source=f"av_mae/{fusion}",
            )
        )
    return runs


# --- MAViL ---


def _mavil() -> list[Experiment]:
    base = {
        "num_layers": 2,
        "num_fusion_layers": 1,
        "decoder": DECODER,
        "masking": {"audio": {"ratio": 0.5}, "video": {"ratio": 0.5}},
        # Ten times the paper's weights, which are for weeks of training.
        "contrast": {"weight": 1.0, "temperature": 0.1},
        "intra_contrast": {"weight": 0.1, "temperature": 1.0},
    }
    no_contrast = {"contrast": {"weight": 0.0}, "intra_contrast": {"weight": 0.0}}
    apart = {**no_contrast, "num_fusion_layers": 0, "allow_uncoupled": True}
    student = {"teacher": {}, "teacher_output": "fusion"}

    def pretrained(
        name: str, own: dict[str, Any], teacher: str | None = None, iteration: int = 0
    ) -> Experiment:
        return _run(
            f"mavil/{name}",
            "mavil",
            {**base, **own},
            teacher=teacher and f"mavil/{teacher}",
            seed_shift=1000 * iteration,
        )

    runs = [
        pretrained("two_maes", apart),
        pretrained("joint", no_contrast),
        pretrained("one_view", {"intra_contrast": {"weight": 0.0}}),
        pretrained("stage_1", {}),
        pretrained("iteration_1", student, "stage_1", 1),
        pretrained("iteration_2", student, "iteration_1", 2),
        pretrained("iteration_3", student, "iteration_2", 3),
        pretrained(
            "unimodal_targets", {**student, "teacher_output": "unimodal"}, "stage_1", 1
        ),
    ]
    sources = [run.name.removeprefix("mavil/") for run in runs]
    return runs + [
        _run(
            f"mavil/{source or 'scratch'}/{modality}",
            "mavil",
            {"num_layers": 2, "num_fusion_layers": 1},
            modality=modality,
            data=_labels(),
            source=source and f"mavil/{source}",
        )
        for source in (*sources, None)
        for modality in ("audio", "video")
    ]


# --- Spoken digits ---


def _digits() -> list[Experiment]:
    model = {"num_fusion_layers": 1, "fusion": "separate"}
    pretraining = {
        "decoder": {**DECODER, "sharing": "separate"},
        "masking": {"audio": {"ratio": 0.5}},
    }
    data = {"dataset": DIGITS}
    runs = [
        _run(
            "digits/pretrained",
            "av_mae",
            {**model, **pretraining},
            modality="audio",
            data=data,
        )
    ]
    return runs + [
        _run(
            f"digits/{source}/labels_{number}",
            "av_mae",
            model,
            modality="audio",
            data={**data, **_labels(number, 10)},
            source="digits/pretrained" if source == "pretrained" else None,
            dataset=HELD_OUT_DIGITS,
            split="train",
        )
        for number in (1, 10, 100)
        for source in ("pretrained", "scratch")
    ]
