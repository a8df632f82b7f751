"""The picture of the front page and the README: what a pretrained run reconstructs.

    tfavmae data build sounding_shapes --data-dir data --set name=picture \
        --set num_train_clips=2000 --set num_validation_clips=400
    tfavmae pretrain --config configs/cav_mae/pretrain_sounding_shapes_demo.yaml \
        --workdir runs/picture --set data.dataset=sounding_shapes/picture \
        --set data.data_dir=data
    python website/picture.py runs/picture
"""

import argparse
import pathlib

PICTURE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "reconstructions.png"


def main() -> None:
    from PIL import Image

    from tfavmae.report.reconstructions import figure, reconstruct
    from tfavmae.tasks.trained import load

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--clips", type=int, nargs="+", default=[2, 5, 9])
    args = parser.parse_args()
    loaded = load(args.run)
    batch = next(iter(loaded.batches(loaded.open_split())))
    chosen = {key: values[args.clips] for key, values in as_arrays(batch).items()}
    clips = reconstruct(loaded.run.model, chosen, num_clips=len(args.clips))
    Image.fromarray(figure(clips)).quantize(256).save(PICTURE, optimize=True)
    print(PICTURE)


def as_arrays(batch: dict) -> dict:
    import numpy as np

    return {key: np.asarray(values) for key, values in batch.items()}


if __name__ == "__main__":
    main()
