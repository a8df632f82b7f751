"""What a recipe comes to and what a data set holds, for people."""

import math


def show(config, num_classes=None):
    """Prints the resolved recipe and the size and cost of its model."""
    from tfavmae.config import experiment as config_lib

    print(config_lib.to_yaml(config))
    model = build(config, num_classes)
    model.summary(expand_nested=False)
    print(f"parameters           {model.count_params():,}")
    for modality, spec in model.inputs_by_modality.items():
        tokens = math.prod(spec.grid)
        shape = " x ".join(str(n) for n in spec.grid)
        print(f"{modality} tokens         {tokens:,} ({shape})")
    for name, flops in costs(model).items():
        print(f"{name:20} {flops / 1e9:,.3f} GFLOP per clip")


def build(config, num_classes=None):
    """The untrained model; a classifier asks the data set for its classes."""
    from tfavmae.training import factory

    if config.stage == "pretrain":
        return factory.build_model(config)
    if num_classes is None:
        data = factory.TrainingData(config.data, config.model, seed=config.trainer.seed)
        return factory.build_model(config, data.labels())
    labels = factory.Labels(num_classes, multi_label=False, names=None)
    return factory.build_model(config, labels)


def costs(model) -> dict[str, int]:
    """Floating-point operations of one clip's forward pass, by the way it is called.

    Matrix products are counted, two operations per multiply-add; the rest is noise.
    """
    from tfavmae.models.masked_autoencoder import MaskedAutoencoder

    if not isinstance(model, MaskedAutoencoder):
        return {"forward": _count_products(model, {})}
    return {
        "forward, masked": _count_products(model, {"masked": True}),
        "forward, all tokens": _count_products(model, {"masked": False}),
    }


def _count_products(model, options):
    import tensorflow as tf

    specs = {"audio": _audio_spec, "video": _video_spec}
    inputs = {m: specs[m](spec) for m, spec in model.inputs_by_modality.items()}
    call = tf.function(lambda batch: model(batch, training=False, **options))
    graph = call.get_concrete_function(inputs).graph
    operations = graph.get_operations()
    return sum(_flops(op) for op in operations if op.type in _INNER_TRANSPOSED)


_INNER_TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}


def _flops(operation):
    left, output = operation.inputs[0].shape, operation.outputs[0].shape
    axis = -2 if operation.get_attr(_INNER_TRANSPOSED[operation.type]) else -1
    return 2 * output.num_elements() * left[axis]


def _audio_spec(spec):
    import tensorflow as tf

    samples = math.ceil(spec.clip_seconds * spec.sample_rate_hz)
    return tf.TensorSpec((1, samples), "int16")


def _video_spec(spec):
    import tensorflow as tf

    return tf.TensorSpec((1, spec.num_frames, spec.height, spec.width, 3), "uint8")


def show_dataset(name, data_dir=None):
    """Prints what a built data set holds."""
    from rich.console import Console
    from rich.table import Table

    from tfavmae.data.pipeline import open_split
    from tfavmae.data.splits import open_info

    info = open_info(name, data_dir)
    table = Table("split", "clips", "without sound", "without picture", "fingerprint")
    for split_name in sorted(info.splits):
        split = open_split(str(info.data_dir), split_name)
        missing = [
            str(int((~split.present(modality)).sum()))
            for modality in ("audio", "video")
        ]
        table.add_row(
            split_name, str(split.num_examples), *missing, split.fingerprint[:12]
        )
    print(f"{info.full_name} in {info.data_dir} ({info.dataset_size})")
    Console().print(table)
    for label in split.label_features:
        _show_label(split, label)
    _show_metadata(split.metadata)


def _show_label(split, label):
    names = split.label_names(label)
    if names:
        print(f"{label}: {len(names)} classes: {', '.join(names)}")


def _show_metadata(metadata):
    ceilings = metadata.get("ceilings", {})
    for modality, accuracy in ceilings.items():
        given = modality.replace("_", " and ")
        print(f"best possible accuracy from {given}: {accuracy:.1%}")
    for key, value in metadata.get("summary", {}).items():
        print(f"{key.replace('_', ' ')}: {value}")
