"""The papers' claims, as comparisons of runs, with the published figures."""

from reproduction.experiments import GALLERY_SIZE, RETRIEVED
from reproduction.outcomes import Claim, Comparison, Side


def claims(with_digits: bool) -> tuple[Claim, ...]:
    """All claims, in the order of the page.

    Args:
        with_digits: whether the recordings of spoken digits are there.
    """
    found = (
        *_pretraining(),
        *_objectives(),
        *_architectures(),
        *_mavil(),
        *_retrieval(),
    )
    return (*found, _few_labels(), *([_digits()] if with_digits else []))


def _only(name: str) -> Side:
    return {name: 1.0}


def _versus(
    text: str, published: str, first: str, second: str, kind: str = "above"
) -> Comparison:
    return Comparison(text, published, _only(first), _only(second), kind)


def _both_modalities(source: str) -> Side:
    """Mean of the accuracies from audio and from video."""
    return {f"mavil/{source}/{modality}": 0.5 for modality in ("audio", "video")}


_AV = "accuracy from both, 10 labels a class"


def _pretraining() -> list[Claim]:
    def single(modality: str, published: str) -> list[Comparison]:
        name = f"mavil/{{}}/{modality}"
        return [
            _versus(
                f"{modality}: MAViL's first stage, MAE of {modality} alone",
                published,
                name.format("stage_1"),
                name.format("two_maes"),
                "at_least",
            ),
            _versus(
                f"{modality}: joint reconstruction, MAE of {modality} alone",
                "MAViL, table 1: "
                + ("36.8, 36.4" if modality == "audio" else "17.7, 17.4"),
                name.format("joint"),
                name.format("two_maes"),
                "at_least",
            ),
        ]

    return [
        Claim(
            "Audio-visual pretraining beats none",
            _AV,
            (
                _versus(
                    "CAV-MAE, no pretraining",
                    "not legible (CAV-MAE, table 10)",
                    "cav_mae/both/labels_10",
                    "cav_mae/scratch/labels_10",
                ),
                _versus(
                    "AV-MAE (mid-fusion, MBT), no pretraining",
                    "AV-MAE, tables 6 and 9: 64.2, 51.0",
                    "av_mae/mid/mbt",
                    "av_mae/scratch/mbt",
                ),
                Comparison(
                    "MAViL's first stage, no pretraining (audio and video alone)",
                    "not a table of the papers",
                    _both_modalities("stage_1"),
                    _both_modalities("scratch"),
                ),
            ),
        ),
        Claim(
            "Audio-visual pretraining beats unimodal pretraining for both modalities",
            _AV,
            tuple(
                _versus(
                    f"AV-MAE ({fusion}, MBT), an MAE of each modality",
                    "AV-MAE, table 10: 64.2, 63.3",
                    f"av_mae/{fusion}/mbt",
                    "av_mae/two_maes/mbt",
                )
                for fusion in ("mid", "separate")
            ),
        ),
        Claim(
            "Audio-visual pretraining does not hurt, or helps, one modality alone",
            "accuracy from one modality, 10 labels a class",
            (
                *single("audio", "MAViL, table 5e: 39.0, 36.4"),
                *single("video", "MAViL, table 5e: 22.2, 17.4"),
            ),
        ),
    ]


def _objectives() -> list[Claim]:
    name = "cav_mae/{}/labels_10".format
    return [
        Claim(
            "Contrast and reconstruction together are at least either alone",
            _AV,
            (
                _versus(
                    "CAV-MAE, contrast alone",
                    "CAV-MAE, section 4: 2.0 mAP more",
                    name("both"),
                    name("contrast"),
                    "at_least",
                ),
                _versus(
                    "CAV-MAE, reconstruction alone",
                    "CAV-MAE, section 4: 3.1 mAP more",
                    name("both"),
                    name("reconstruction"),
                    "at_least",
                ),
            ),
        ),
        Claim(
            "Reconstruction alone retrieves at chance, contrast well above",
            f"R@{RETRIEVED} among {GALLERY_SIZE}, mean of both directions",
            (
                Comparison(
                    "reconstruction alone, chance",
                    "CAV-MAE, section 5: close to random",
                    _only("cav_mae/reconstruction"),
                    {},
                    "at_chance",
                ),
                *[
                    Comparison(
                        f"{text}, chance",
                        "not legible (CAV-MAE, table 3)",
                        _only(run),
                        {},
                        "above_chance",
                    )
                    for text, run in (
                        ("contrast alone", "cav_mae/contrast"),
                        ("both objectives", "cav_mae/both"),
                    )
                ],
            ),
        ),
        Claim(
            "Shuffled pairs destroy retrieval and cost classification",
            f"R@{RETRIEVED}; {_AV}",
            (
                Comparison(
                    "retrieval after shuffled pairs, chance",
                    "not in table 16",
                    _only("cav_mae/shuffled"),
                    {},
                    "at_chance",
                ),
                _versus(
                    "classification: original pairs, shuffled pairs",
                    "not legible (CAV-MAE, table 16)",
                    name("both"),
                    name("shuffled"),
                ),
            ),
        ),
    ]


def _architectures() -> list[Claim]:
    published = {"early": "62.2", "separate": "63.0", "mid": "63.5"}
    pairs = [(a, b) for a in ("separate", "mid") for b in ("early", "shared")]
    own = {"early": "62.2, 59.4", "separate": "63.0, 60.4"}
    return [
        Claim(
            "Separate encoders and mid-fusion are at least early fusion and shared",
            f"{_AV}, fine-tuned with MBT",
            tuple(
                _versus(
                    f"{a}, {b}",
                    f"AV-MAE, tables 14 and 15: {published[a]}, {published[b]}"
                    if b in published
                    else "not legible (AV-MAE, table 14)",
                    f"av_mae/{a}/mbt",
                    f"av_mae/{b}/mbt",
                    "at_least",
                )
                for a, b in pairs
            ),
        ),
        Claim(
            "MBT is at least the pretraining encoder",
            _AV,
            tuple(
                _versus(
                    f"{fusion}: MBT, own encoder",
                    f"AV-MAE, table 14: {own[fusion]}"
                    if fusion in own
                    else "not legible (AV-MAE, table 14)",
                    f"av_mae/{fusion}/mbt",
                    f"av_mae/{fusion}/own_encoder",
                    "at_least",
                )
                for fusion in ("early", "shared", "separate", "mid")
            ),
        ),
        Claim(
            "Joint reconstruction is above inpainting",
            f"{_AV}, early fusion, fine-tuned with MBT",
            (
                _versus(
                    "joint reconstruction, inpainting of both modalities",
                    "AV-MAE, table 2: 62.2, not legible",
                    "av_mae/early/mbt",
                    "av_mae/inpainting/mbt",
                ),
            ),
        ),
    ]


def _mavil() -> list[Claim]:
    def versus(text: str, published: str, first: str, second: str) -> Comparison:
        return Comparison(
            text,
            f"MAViL, {published}",
            _both_modalities(first),
            _both_modalities(second),
        )

    measure = "mean of the accuracies from audio and from video, 10 labels a class"
    return [
        Claim(
            "Two views of a modality are above one",
            measure,
            (
                versus(
                    "both contrasts, contrast between modalities alone",
                    "table 3: 39.0 / 22.2, 38.4 / 21.0",
                    "stage_1",
                    "one_view",
                ),
            ),
        ),
        Claim(
            "The second stage is above the first, and each iteration above the last",
            measure,
            tuple(
                versus(text, f"table 4b: {published}", first, second)
                for text, published, first, second in (
                    (
                        "iteration 1, stage 1",
                        "40.7 / 24.1, 39.0 / 22.2",
                        "iteration_1",
                        "stage_1",
                    ),
                    (
                        "iteration 2, iteration 1",
                        "41.5 / 24.6, 40.7 / 24.1",
                        "iteration_2",
                        "iteration_1",
                    ),
                    (
                        "iteration 3, iteration 2",
                        "41.8 / 24.8, 41.5 / 24.6",
                        "iteration_3",
                        "iteration_2",
                    ),
                )
            ),
        ),
        Claim(
            "Fused targets are above unimodal targets",
            measure,
            (
                versus(
                    "targets after fusion, targets before fusion",
                    "table 4a: 40.7 / 24.1, 40.2 / 23.8",
                    "iteration_1",
                    "unimodal_targets",
                ),
            ),
        ),
    ]


def _retrieval() -> list[Claim]:
    measure = f"R@{RETRIEVED} among {GALLERY_SIZE}, mean of both directions"
    by_ratio = (
        "cav_mae/ratio_25",
        "cav_mae/both",
        "cav_mae/ratio_75",
        "cav_mae/ratio_90",
    )
    ratios = ("25 %", "50 %", "75 %", "90 %")
    return [
        Claim(
            "Retrieval falls with the masking ratio",
            measure,
            tuple(
                _versus(
                    f"{ratios[i]} masked, {ratios[i + 1]}",
                    "not legible (CAV-MAE, table 13)",
                    by_ratio[i],
                    by_ratio[i + 1],
                )
                for i in range(3)
            ),
        ),
        Claim(
            "Retrieval rises with structured masks of the spectrogram",
            f"{measure}, 75 % masked",
            tuple(
                _versus(
                    f"{strategy.replace('_', '-')} masks, random masks",
                    "not legible (CAV-MAE, table 15)",
                    f"cav_mae/{strategy}_75",
                    "cav_mae/ratio_75",
                )
                for strategy in ("time", "frequency", "time_frequency")
            ),
        ),
    ]


def _few_labels() -> Claim:
    def gain(number: int) -> Side:
        return {
            f"cav_mae/both/labels_{number}": 1.0,
            f"cav_mae/scratch/labels_{number}": -1.0,
        }

    return Claim(
        "The fewer the labels, the larger the gain of pretraining",
        "accuracy from both after CAV-MAE's pretraining, less that without",
        tuple(
            Comparison(
                f"gain with {few} labels a class, with {many}",
                "not a table of the papers",
                gain(few),
                gain(many),
            )
            for few, many in ((2, 10), (10, 100))
        ),
    )


def _digits() -> Claim:
    return Claim(
        "Pretraining helps on real recordings of a speaker who was not heard before",
        "accuracy on spoken digits, AV-MAE's encoder on audio alone",
        tuple(
            _versus(
                f"{number} labels a digit: pretrained, not pretrained",
                "not a table of the papers",
                f"digits/pretrained/labels_{number}",
                f"digits/scratch/labels_{number}",
            )
            for number in (1, 10, 100)
        ),
    )
