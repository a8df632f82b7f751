"""`evaluate`, `retrieve`, `embed`, `export`: what a trained model is asked."""

import pathlib

from tfavmae.commands import tables, trained
from tfavmae.commands.arguments import add_command
from tfavmae.errors import UserError


def add_parsers(commands):
    _add_evaluate(commands)
    _add_retrieve(commands)
    _add_embed(commands)
    _add_export(commands)


def _add_evaluate(commands):
    parser = add_command(
        commands,
        "evaluate",
        evaluate,
        summary="measure a fine-tuned model on a split",
        example="tfavmae evaluate --workdir runs/finetune --split validation",
        needs=("workdir",),
    )
    _add_split(parser)
    parser.add_argument(
        "--views",
        type=int,
        default=1,
        metavar="N",
        help="frames and windows per clip to average over (default: 1)",
    )


def _add_retrieve(commands):
    parser = add_command(
        commands,
        "retrieve",
        retrieve,
        summary="find pictures by sound and sound by picture",
        example="tfavmae retrieve --workdir runs/pretrain --query clip.mp4",
        needs=("workdir",),
    )
    _add_split(parser)
    add = parser.add_argument
    add("--gallery", type=int, metavar="N", help="use the first N complete clips")
    add("--query", metavar="FILE", help="search all clips with a media file")
    add("--by", choices=("audio", "video"), default="audio", help="side of the query")
    add("--top", type=int, default=5, metavar="N", help="results to show (default: 5)")


def _add_embed(commands):
    parser = add_command(
        commands,
        "embed",
        embed,
        summary="turn clips into vectors",
        example="tfavmae embed my_videos --workdir runs/pretrain --output vectors.npz",
        positional=("INPUT", "media file or folder; or a split, as train"),
        needs=("workdir",),
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        required=True,
        help="where to; .npz, or .csv with one line per clip",
    )
    parser.add_argument(
        "--strict", action="store_true", help="a bad file is an error, not skipped"
    )


def _add_export(commands):
    parser = add_command(
        commands,
        "export",
        export,
        summary="write a SavedModel for TensorFlow Serving and check it",
        example="tfavmae export --workdir runs/finetune --directory export/shapes",
        needs=("workdir",),
    )
    add = parser.add_argument
    add("--directory", metavar="DIR", help="where to; default: WORKDIR/export/model")
    add("--version", type=int, default=1, metavar="N", help="number (default: 1)")
    add("--overwrite", action="store_true", help="replace that version")


def _add_split(parser):
    parser.add_argument(
        "--split", metavar="NAME", help="which clips; default: the recipe's validation"
    )


def evaluate(args):
    from tfavmae.data.pipeline import naming_damage
    from tfavmae.tasks import classification

    asked = trained.load(args)
    _need(asked, "finetune", "evaluate", "retrieve")
    if args.views < 1:
        raise UserError(f"--views {args.views}: a clip has at least one view")
    label, split = asked.config.data.label, asked.open_split(args.split)
    with naming_damage():
        result = classification.evaluate(
            asked.run.model,
            asked.batches(split, (label,), num_views=args.views),
            label=label,
            class_names=asked.run.labels.names,
        )
    return _finish(result, asked.workdir / f"evaluation_{_file_name(split.name)}.json")


def retrieve(args):
    from tfavmae.tasks import retrieval

    asked = trained.load(args)
    # Figures belong to held-out clips, a search to everything there is.
    everywhere = args.query and not args.split
    split = asked.open_all() if everywhere else asked.open_split(args.split)
    indices = _gallery(split, args.gallery)
    labels = {retrieval.COUNTS_AS_MISS} & set(split.label_features)
    vectors = _embed_split(asked, split, indices, tuple(labels))
    if args.query:
        return _search(args, asked, split, retrieval.paired(vectors))
    result = retrieval.evaluate(vectors)
    tables.write_npz(
        asked.workdir / f"embeddings_{_file_name(split.name)}.npz", vectors
    )
    return _finish(result, asked.workdir / f"retrieval_{_file_name(split.name)}.json")


def embed(args):
    output = pathlib.Path(args.output)
    writers = {".npz": tables.write_npz, ".csv": tables.write_csv}
    if output.suffix not in writers:
        raise UserError(f"--output {output}: the name must end in .npz or .csv")
    asked = trained.load(args)
    if pathlib.Path(args.input).expanduser().exists():
        with trained.media_split(args.input, asked, args.strict) as (split, bad_files):
            vectors = _embed_split(asked, split)
            ids = split.ids()
        for path, reason in bad_files:
            print(f"skipped {path}: {reason}")
    else:
        split = asked.open_split(args.input)
        vectors, ids = _embed_split(asked, split), split.ids()
    writers[output.suffix](output, {"id": ids, **vectors})
    print(f"{len(ids)} clips in {output}")


def export(args):
    from tfavmae.serving import export as exporting

    asked = trained.load(args)
    model, labels = asked.run.model, asked.run.labels
    batch = next(iter(asked.batches(asked.open_split())))
    path = exporting.export(
        model,
        args.directory or asked.workdir / "export" / "model",
        batch=batch,
        labels=(labels and labels.names) or (),
        version=args.version,
        overwrite=args.overwrite,
    )
    checked = exporting.verify_export(path, model, batch)
    print(
        f"{path}: answers as the model does in a process without tfavmae "
        f"(largest difference {checked.worst:.1e})"
    )
    return checked


def _need(asked, stage, command, other):
    if asked.run.config.stage != stage:
        raise UserError(
            f"{asked.workdir} holds a model without classes; `{command}` needs one "
            f"made by `tfavmae finetune`, use `tfavmae {other}` for this one"
        )


def _gallery(split, size):
    """The first `size` clips that have sound and picture; None for the whole split."""
    if size is None:
        return None
    rows = split.rows(keep=("audio", "video"))
    if not 1 <= size <= len(rows):
        raise UserError(
            f"--gallery {size}: {split.name} has {len(rows)} clips with sound and "
            "picture; give a number up to that"
        )
    return rows[:size]


def _embed_split(asked, split, indices=None, labels=()):
    from tfavmae.data.pipeline import naming_damage
    from tfavmae.tasks import embedding

    batches = asked.batches(split, labels, indices=indices)
    with naming_damage():
        return embedding.embed(asked.run.model, batches, labels=labels)


def _search(args, asked, split, gallery):
    from tfavmae.tasks import retrieval

    target = {"audio": "video", "video": "audio"}[args.by]
    with trained.media_split(args.query, asked) as (asked_split, _):
        query = _embed_split(asked, asked_split)
    if not query[f"{args.by}_present"].any():
        raise UserError(f"{args.query} has no {args.by}; search --by {target}")
    vector = query[f"{args.by}_embedding"][query[f"{args.by}_present"]].mean(0)
    order, similarity = retrieval.search(vector, gallery[target], args.top)
    ids = split.ids()
    for place, (row, value) in enumerate(zip(order, similarity, strict=True), start=1):
        print(f"{place:3}  {value:.3f}  {ids[gallery['example_index'][row]]}")


def _finish(result, path):
    result.to_json(path)
    result.print()
    print(path)
    return result


def _file_name(split):
    """`train[:10%]` is a split, but no good file name."""
    return "".join(c if c.isalnum() else "_" for c in split).strip("_")
