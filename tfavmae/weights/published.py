"""The published files of weights: where they are, under which licence, what they start.

The files themselves are their authors'. Nothing here is downloaded: licences differ,
and several forbid commercial use.
"""

import dataclasses
import fnmatch
import os

_MAE = "https://github.com/facebookresearch/mae"
_NON_COMMERCIAL = "CC BY-NC 4.0"
_APACHE = "Apache-2.0"
_CAV_MAE = "none of its own; the code is BSD-2-Clause"
_CAV_MAE_PAGE = "https://github.com/YuanGongND/cav-mae"
_DROPBOX = "https://www.dropbox.com/s/{}/{}?dl=1"
_SCENIC = "https://storage.googleapis.com/scenic-bucket/av_mae/{}/checkpoint"
_SCENIC_MBT = "https://github.com/google-research/scenic/tree/main/scenic/projects/mbt"


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that its authors publish, or several that differ in nothing but training.

    Attributes:
        file: name, as published.
        source: address of the file, or of the page that links to it.
        licence: of the weights.
        family: of `weights.identify`.
        gives: what it is.
        starts: rows of the papers that begin with it, or that it is the result of.
        settings: what the file does not say: arguments of `--set`.
    """

    file: str
    source: str
    licence: str
    family: str
    gives: str
    starts: str
    settings: tuple[str, ...] = ()


def _cav_mae(
    file: str,
    key: str,
    gives: str,
    starts: str,
    *settings: str,
    family: str = "cav_mae",
) -> Published:
    source = _DROPBOX.format(key, file)
    return Published(file, source, _CAV_MAE, family, gives, starts, settings)


def _scenic(
    name: str, family: str, gives: str, starts: str, *settings: str
) -> Published:
    source = _SCENIC.format(name)
    return Published(
        f"{name}/checkpoint", source, _APACHE, family, gives, starts, settings
    )


_OF_AUDIO, _OF_VIDEO = "model.modality=audio", "model.modality=video"
_TEN_SECONDS = "model.audio.num_frames=992"

PUBLISHED: tuple[Published, ...] = (
    Published(
        "mae_pretrain_vit_base.pth",
        _MAE,
        _NON_COMMERCIAL,
        "image_mae",
        "image MAE, ViT-Base, encoder",
        "MAViL tables 1 to 14 (video branch)",
    ),
    Published(
        "mae_pretrain_vit_large.pth",
        _MAE,
        _NON_COMMERCIAL,
        "image_mae",
        "image MAE, ViT-Large, encoder",
        "MAViL tables 6 and 14, Large",
    ),
    Published(
        "mae_pretrain_vit_huge.pth",
        _MAE,
        _NON_COMMERCIAL,
        "image_mae",
        "image MAE, ViT-Huge with patches of 14, encoder",
        "none",
    ),
    Published(
        "mae_pretrain_vit_base_full.pth",
        _MAE,
        _NON_COMMERCIAL,
        "image_mae",
        "image MAE, ViT-Base with decoder",
        "CAV-MAE tables 1 to 16, all pretraining",
    ),
    Published(
        "mae_finetuned_vit_base.pth",
        _MAE,
        _NON_COMMERCIAL,
        "vit",
        "image MAE, ViT-Base, fine-tuned on ImageNet",
        "CAV-MAE table 11; MAViL table 5b (supervised)",
    ),
    Published(
        "mae_st's pretrained ViT-L and ViT-H",
        "https://github.com/facebookresearch/mae_st",
        _NON_COMMERCIAL,
        "mae_st",
        "MAE of videos, encoder",
        "none",
    ),
    Published(
        "timm's vit_base_patch16_224.augreg_in21k and others",
        "https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k",
        _APACHE,
        "vit",
        "supervised ViT of images, ImageNet-21k or -1k",
        "AV-MAE tables 6 and 9 (MBT from ImageNet-21k)",
    ),
    Published(
        "augreg/B_16-*.npz, L_16-*.npz",
        "https://github.com/google-research/vision_transformer",
        _APACHE,
        "vit",
        "supervised ViT of images by its authors",
        "AV-MAE tables 6 and 9 (MBT from ImageNet-21k)",
    ),
    Published(
        "VideoMAE's pretraining checkpoints",
        "https://github.com/MCG-NJU/VideoMAE",
        _NON_COMMERCIAL,
        "video_mae",
        "VideoMAE, ViT-S, -B, -L or -H with decoder",
        "none",
    ),
    Published(
        "pretrained.pth (Audio-MAE)",
        "https://github.com/facebookresearch/AudioMAE",
        _NON_COMMERCIAL,
        "audio_mae",
        "Audio-MAE, ViT-Base, encoder; its decoder of Swin blocks is left",
        "MAViL with an audio branch that has been trained",
    ),
    Published(
        "finetuned.pth (Audio-MAE)",
        "https://github.com/facebookresearch/AudioMAE",
        _NON_COMMERCIAL,
        "audio_mae",
        "Audio-MAE, fine-tuned on AudioSet, encoder",
        "none",
    ),
    _cav_mae(
        "audio_model.21.pth",
        "l5t5geufdy3qvnv",
        "CAV-MAE Scale++ (batch 256)",
        "fine-tuning after the paper: AS-20K 42.2, VGGSound 65.8",
    ),
    _cav_mae(
        "audio_model.25.pth",
        "xu8bfie6hz86oev",
        "CAV-MAE Scale+ (batch 108)",
        "tables 1, 2, 3, 5 to 11",
    ),
    _cav_mae(
        "cav-mae-base.pth", "wxrjgr86gdhc5k8", "CAV-MAE Base", "tables 1 to 3, 7, 9"
    ),
    _cav_mae(
        "cav-mae-base-nonorm.pth",
        "arrg7cb3e4hhjwu",
        "CAV-MAE Base without normalised targets",
        "table 2d; figures 9 to 11",
        "model.options.target_normalization=null",
    ),
    _cav_mae("50.pth", "dgorer0ybdbnvgf", "CAV-MAE Base, ratio 0.5", "tables 12, 13"),
    _cav_mae("65.pth", "xmuyksqch6l6g87", "CAV-MAE Base, ratio 0.65", "tables 12, 13"),
    _cav_mae("85.pth", "y3o9zggpecmrbnu", "CAV-MAE Base, ratio 0.85", "tables 12, 13"),
    _cav_mae(
        "time_freq_75.pth",
        "madv6ynuy5113zh",
        "CAV-MAE Base, time and frequency masked",
        "tables 14, 15",
    ),
    _cav_mae(
        "time_freq_50.pth",
        "nd7qlagn8je6zjn",
        "CAV-MAE Base, time and frequency masked, ratio 0.5",
        "table 14",
    ),
    _cav_mae(
        "time_75.pth", "hfehd7m379ehr0y", "CAV-MAE Base, time masked", "tables 14, 15"
    ),
    _cav_mae(
        "freq_75.pth",
        "ad4fhzt6d3xre5p",
        "CAV-MAE Base, frequency masked",
        "tables 14, 15",
    ),
    _cav_mae(
        "cav-mae-base-c0.001.pth",
        "4j4qyiyjcmbtc6u",
        "CAV-MAE Base, lambda_c 0.001",
        "table 2a",
    ),
    _cav_mae(
        "cav-mae-base-c0.1.pth",
        "wf54ver9rs9fl1b",
        "CAV-MAE Base, lambda_c 0.1",
        "tables 2a, 3, 7, 9",
    ),
    _cav_mae(
        "single_direction.pth",
        "mvhmg7eda410phr",
        "CAV-MAE Scale+, batch 120",
        "none: after the paper",
    ),
    _cav_mae(
        "symc.pth",
        "ute6ydkw4hdv7rn",
        "CAV-MAE Scale+, contrast in both directions",
        "none: after the paper",
    ),
    _cav_mae(
        "ori_mae_11.pth",
        "9nlz523a5q52w86",
        "image MAE in CAV-MAE's layout: how its authors start",
        "CAV-MAE tables 1 to 16, all pretraining",
    ),
    *(
        _cav_mae(file, key, gives, starts, *settings, family="cav_mae_classifier")
        for file, key, gives, starts, *settings in (
            ("as-full-51.2.pth", "hejj49zdgyyfsuh", "AS-2M, 51.2 mAP", "table 1"),
            ("as-20k-42.0.pth", "9x6y642so3zve5y", "AS-20K, 42.0 mAP", "table 1"),
            ("vgg_65.5.pth", "f4wrbxv2unewss9", "VGGSound, 65.5 %", "table 1"),
            ("vgg_66.0.pth", "q66s3mu526mj2x6", "VGGSound, 65.9 %", "table 2e"),
            (
                "as_46.6.pth",
                "itfw7p0ueq7z9og",
                "AS-2M, sound, 46.6 mAP",
                "table 1",
                _OF_AUDIO,
            ),
            (
                "as_37.7.pth",
                "pariabyh1iyayda",
                "AS-20K, sound, 37.7 mAP",
                "table 1",
                _OF_AUDIO,
            ),
            (
                "vgg_59.8.pth",
                "l4rj0sgpnt08bp2",
                "VGGSound, sound, 59.8 %",
                "table 1",
                _OF_AUDIO,
            ),
            (
                "as_20.0.pth",
                "9ngkq9ygwqecxz5",
                "AS-20K, video, 20.0 mAP",
                "table 1",
                _OF_VIDEO,
            ),
        )
    ),
    Published(
        "mavil_as_pt_ft_a+v.pth",
        "https://github.com/roger-tseng/av-superb",
        "all rights reserved (Meta Platforms)",
        "mavil_classifier",
        "MAViL Base, fine-tuned on AS-2M",
        "MAViL table 6",
    ),
    _scenic(
        "as2m_selfsup_audiovisual",
        "scenic_av_mae",
        "AV-MAE Large, AudioSet",
        "AV-MAE tables 4, 7b, 9, 16",
        _TEN_SECONDS,
    ),
    _scenic(
        "as2m_selfsup_audio",
        "scenic_av_mae",
        "masked autoencoder of sound, Large, AudioSet",
        "none",
        _TEN_SECONDS,
    ),
    _scenic(
        "vggsound_selfsup_audiovisual",
        "scenic_av_mae",
        "AV-MAE Large, VGGSound",
        "AV-MAE tables 4 to 7, 9",
    ),
    *(
        _scenic(name, "scenic_mbt", f"AV-MAE Large, fine-tuned, {gives}", starts)
        for name, gives, starts in (
            ("as2m_selfsup_audiovisual_finetuned_audiovisual", "51.8 mAP", "table 7b"),
            ("as2m_selfsup_audiovisual_finetuned_audio", "46.6 mAP", "table 7b"),
            ("as2m_selfsup_audiovisual_finetuned_video", "31.1 mAP", "table 7b"),
            ("as2m_selfsup_audio_finetuned_audio", "46.4 mAP", "none"),
            (
                "vggsound_selfsup_audiovisual_finetuned_audiovisual",
                "65.0 %",
                "table 7a",
            ),
            ("vggsound_selfsup_audiovisual_finetuned_audio", "57.2 %", "table 7a"),
            ("vggsound_selfsup_audiovisual_finetuned_video", "50.3 %", "table 7a"),
        )
    ),
    *(
        Published(
            f"mbtb32_{data}_{inputs}",
            _SCENIC_MBT,
            _APACHE,
            "scenic_mbt",
            f"MBT of 2021, Base, AudioSet, {score} mAP",
            "none: what AV-MAE compares with",
            ("model.options.stream_fusion.first_layer=8",),
        )
        for data, inputs, score in (
            ("as-mini", "spec", 30.9),
            ("as-mini", "rgb", 27.0),
            ("as-mini", "rgb-spec", 43.9),
            ("as-500k", "spec", 44.0),
            ("as-500k", "rgb", 33.9),
            ("as-500k", "rgb-spec", 52.3),
        )
    ),
    Published(
        "CAV-MAE Sync's checkpoint",
        "https://github.com/edsonroteia/cav-mae-sync",
        "none of its own; the code is BSD-2-Clause",
        "cav_mae_sync",
        "a start for CAV-MAE Sync: ours has no register tokens",
        "none",
    ),
    Published(
        "EquiAV's checkpoint",
        "https://github.com/JongSuk1/EquiAV",
        "none of its own; the code is MIT",
        "equi_av",
        "EquiAV Base, both encoders",
        "none",
    ),
)


# What a model card may state, by the licence above.
SPDX = {_NON_COMMERCIAL: "cc-by-nc-4.0", _APACHE: "apache-2.0"}


def of_family(family: str) -> list[Published]:
    """The published files of a family of `weights.identify`."""
    return [x for x in PUBLISHED if x.family == family]


def of_name(path: str) -> Published | None:
    """The published file that a path is named after, or `None`.

    Args:
        path: of a file, which need not exist. Only its last part counts, but for
            Scenic's, whose files are all called `checkpoint`.
    """
    for entry in PUBLISHED:
        for name in entry.file.split(", "):
            if name.endswith("/checkpoint"):
                if path.endswith(name):
                    return entry
            elif fnmatch.fnmatch(os.path.basename(path), os.path.basename(name)):
                return entry
    return None
