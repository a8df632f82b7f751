"""Published files at their true size: counted, told, and fitted tensor by tensor.

Nothing of that size is in memory: tensors are views of one zero, and models have shapes
alone. The counts are those of the authors' classes.
"""

import math

import numpy as np
import published_files
import pytest

from tfavmae.models.transfer import address
from tfavmae.private_hooks import shapes_only
from tfavmae.weights.identify import identify
from tfavmae.weights.stored import StoredTensor, WeightFile

BASE, DECODER = (768, 3072, 12), (512, 2048, 8)
LARGE, HUGE = (1024, 4096, 24), (1280, 5120, 32)
STREAMS = (768, 3072, 11)
FLAX_LARGE, FLAX_DECODER = (1024, 16, 4096, 24), (512, 8, 2048, 4)
HEAD = {"head.weight": (1000, 768), "head.bias": (1000,)}

# Shapes; the numbers of tensors and parameters where their authors' class was counted;
# title; our preset.
FILES = {
    "mae_pretrain_vit_base": (
        *(published_files.mae(*BASE, 196), 150, 85_798_656),
        *("image MAE, ViT-Base with no decoder", "mavil_base"),
    ),
    "mae_pretrain_vit_base_full": (
        *(published_files.mae(*BASE, 196, decoder=DECODER), 254, 111_907_840),
        *("image MAE, ViT-Base with decoder", "mavil_base"),
    ),
    "mae_pretrain_vit_large": (
        *(published_files.mae(*LARGE, 196), 294, 303_301_632),
        *("image MAE, ViT-Large with no decoder", "mavil_large"),
    ),
    "mae_pretrain_vit_huge": (
        *(published_files.mae(*HUGE, 256, patch=14), 390, 630_764_800),
        *("image MAE, ViT-Huge with no decoder", "mavil_base"),
    ),
    "vit_base_patch16_224": (
        *({**published_files.mae(*BASE, 196), **HEAD}, 152, None),
        *("supervised ViT, ViT-Base with 224 x 224 pixels", "mavil_base"),
    ),
    "L_16": (
        *(published_files.vit_npz(1024, 16, 4096, 24, 196, 21843), None, None),
        *("supervised ViT of its authors, ViT-Large", "mavil_large"),
    ),
    "mae_st_vit_large": (
        *(published_files.mae_st(*LARGE, (8, 14, 14), (512, 2048, 4)), None, None),
        *("MAE of videos (mae_st), ViT-Large, encoder", "mavil_large"),
    ),
    "video_mae_base": (
        *(published_files.video_mae(*BASE, (384, 1536, 4)), None, None),
        *("VideoMAE, ViT-Base with decoder", "mavil_base"),
    ),
    "audio_mae_base": (
        *(published_files.mae(*BASE, 512, channels=1, decoder=DECODER), 254, None),
        *("Audio-MAE, ViT-Base with decoder", "mavil_base"),
    ),
    "cav_mae": (
        *(published_files.cav_mae(STREAMS, (512, 196), DECODER), 647, 191_036_160),
        *("CAV-MAE, pretrained, ViT-Base", "cav_mae_base"),
    ),
    "cav_mae_audio_set": (
        *(published_files.cav_mae_classifier(STREAMS, (512, 196), 527), 478),
        *(164_907_023, "CAV-MAE, fine-tuned, ViT-Base", "cav_mae_base"),
    ),
    "cav_mae_vggsound": (
        *(published_files.cav_mae_classifier(STREAMS, (512, 196), 309), 478),
        *(164_739_381, "CAV-MAE, fine-tuned, ViT-Base", "cav_mae_base"),
    ),
    "cav_mae_audio": (
        *(published_files.cav_mae_classifier(STREAMS, (512, 196), 527, "a"), 252),
        *(86_129_423, "CAV-MAE, fine-tuned, ViT-Base", "cav_mae_base"),
    ),
    "cav_mae_sync": (
        *(published_files.cav_mae_sync(STREAMS, (208, 196), DECODER), None, None),
        *("CAV-MAE Sync, ViT-Base", "cav_mae_sync_base"),
    ),
    "equi_av": (
        *(published_files.equi_av(BASE, (512, 196)), None, None),
        *("EquiAV, ViT-Base", "mavil_base"),
    ),
    "mavil": (
        *(published_files.mavil(*BASE, (512, 784), 527), None, None),
        *("MAViL fine-tuned on audio and video, ViT-Base", "mavil_base"),
    ),
    "av_mae_large": (
        *(published_files.scenic_av_mae(FLAX_LARGE, FLAX_DECODER, 2), None, None),
        *("AV-MAE, pretrained, ViT-Large, mid fusion", "av_mae_large"),
    ),
    "av_mae_audio_set": (
        *(published_files.scenic_mbt(FLAX_LARGE, 527), None, None),
        *("AV-MAE fine-tuned, ViT-Large", "av_mae_large"),
    ),
    "av_mae_vggsound_video": (
        *(published_files.scenic_mbt(FLAX_LARGE, 309, ["rgb"]), None, None),
        *("AV-MAE fine-tuned, ViT-Large", "av_mae_large"),
    ),
}


def zeros(name, shape):
    array = np.broadcast_to(np.float32(0), shape)
    return StoredTensor(name, shape, "float32", lambda: array)


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_true_size(case):
    shapes, tensors, parameters, title, preset = FILES[case]
    assert tensors in (None, len(shapes))
    assert parameters in (None, sum(map(math.prod, shapes.values())))
    stored = {name: zeros(name, shape) for name, shape in shapes.items()}
    found = identify(WeightFile(case, "torch zip", stored, {}))
    assert found.title.startswith(title)
    assert f"{found.model['name']}_{found.model['size']}" == preset
    with shapes_only():
        model = found.untrained()
        wanted = {address(v): tuple(v.shape) for v in model.weights}
    given = {ours: array.shape for ours, array in found.table.stream(found.tensors)}
    given |= {ours: array.shape for ours, array in found.table.constants.items()}
    assert {a: wanted[a] for a in given} == given
    fresh = [a for a in wanted if a not in given and not found.table.is_ours_alone(a)]
    assert not fresh
