"""Generation of clips as media files, in parallel; continues where it was stopped.

    rows = generate("clips", config.DEMO, "train", num_clips=4000, seed=0)

A clip is a pure function of configuration, seed, split and index; the number of workers
and the order in which they write change nothing.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from tfavmae.building import messages
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import exclusive, remove_partial, write_atomically
from tfavmae_datasets.sounding_shapes import audio, classes, media_file, render
from tfavmae_datasets.sounding_shapes import scene as scenes
from tfavmae_datasets.sounding_shapes.classes import ceilings
from tfavmae_datasets.sounding_shapes.config import SoundingShapesConfig

__all__ = ["ceilings", "generate", "label_row", "write_clip"]


@dataclasses.dataclass(frozen=True)
class Task:
    """Clips to write: `indices` of a split, into `folder`."""

    folder: str
    config: SoundingShapesConfig
    seed: int
    split: str
    indices: list[int]


# Changes whenever the same seed gives other clips.
CONTENT_VERSION = 1
_CHUNK = 16  # clips per task; progress is reported after each task


def generate(
    directory: str | os.PathLike,
    config: SoundingShapesConfig,
    split: str,
    *,
    num_clips: int,
    seed: int = 0,
    num_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Writes `directory/split/*.mp4` and `directory/split/labels.jsonl`.

    Files appear under their name only when complete, so after an interruption the
    same call keeps what is there and writes the rest. Clip i is the same whatever
    `num_clips` is.

    Args:
        directory: the folder of the splits; created if needed.
        config: the configuration of the set.
        split: "train", "validation", "test" or any name; each has a random stream of
            its own.
        num_clips: number of clips.
        seed: another seed gives another set.
        num_workers: processes; None for one per available core.
        progress: called with the number of clips done and of all clips.

    Returns:
        The rows of labels.jsonl, see `label_row`.

    Raises:
        UserError: the folder holds clips of another recipe, another process is writing
            there, or the disk is full.
    """
    if num_clips < 1:
        raise UserError(f"`num_clips` must be at least 1; received {num_clips}.")
    folder = pathlib.Path(directory) / split
    with exclusive(folder / "generation.lock", "generation"):
        _check_recipe(folder, config, seed)
        remove_partial(folder)
        missing, rows = [], {}
        for i in range(num_clips):
            if (folder / f"{scenes.clip_id(split, i)}.mp4").exists():
                rows[i] = label_row(scenes.sample(config, seed, split, i), config)
            else:
                missing.append(i)
        if progress:
            progress(len(rows), num_clips)
        chunks = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
        tasks = [Task(str(folder), config, seed, split, chunk) for chunk in chunks]
        written = _run(tasks, num_workers)
        for chunk, rows_of_chunk in zip(chunks, written, strict=True):
            rows |= zip(chunk, rows_of_chunk, strict=True)
            if progress:
                progress(len(rows), num_clips)
        ordered = [rows[i] for i in range(num_clips)]
        lines = "".join(json.dumps(row) + "\n" for row in ordered)
        write_atomically(folder / "labels.jsonl", lines)
    return ordered


def write_clip(
    path: str | os.PathLike, scene: scenes.Scene, config: SoundingShapesConfig
) -> None:
    """Renders one clip and writes it as an mp4 file."""
    content = media_file.encode(
        render.render(scene, config) if scene.has_video else None,
        audio.render(scene, config) if scene.has_audio else None,
        frame_rate=config.frame_rate,
        sample_rate_hz=config.sample_rate_hz,
    )
    write_atomically(path, content)


def label_row(scene: scenes.Scene, config: SoundingShapesConfig) -> dict[str, Any]:
    """Everything that is known about a clip, as values for JSON.

    Times are in seconds, positions in widths of the frame. `events` are indices into
    `classes.event_names`, `event_times` [onset, offset] of each impact in order of
    time and `event_classes` the class that sounds; `impact_frames` holds the frame
    nearest to each onset; `positions` the labelled object's centre in every frame.
    """
    last_frame = config.num_frames - 1
    events = {b.label for b in scene.sounding}
    names = classes.event_names(config)
    events.add(names.index(scene.ambience))
    if any(i.kind == "collision" for i in scene.impacts):
        events.add(names.index("collision"))
    main = scene.sounding[0]
    struck = [scene.sounding[i.body] for i in scene.impacts]
    event_times = []
    for impact, body in zip(scene.impacts, struck, strict=True):
        offset = impact.time + audio.TIMBRES[body.timbre].seconds
        offset = min(offset, config.clip_seconds)
        event_times.append([round(impact.time, 6), round(offset, 6)])
    return {
        "id": scene.id,
        "file": f"{scene.id}.mp4",
        "label": scene.label,
        "label_name": names[scene.label],
        "events": sorted(events),
        "verb": classes.verbs(config).index(scene.verb),
        "noun": classes.nouns(config).index(main.look),
        "caption": classes.caption(scene),
        "event_times": event_times,
        "event_classes": [b.label for b in struck],
        "event_kinds": [i.kind for i in scene.impacts],
        "event_speeds": [round(i.speed, 4) for i in scene.impacts],
        "impact_frames": [
            min(round(i.time * config.frame_rate), last_frame) for i in scene.impacts
        ],
        "positions": scene.positions[:, 0].round(4).tolist(),
        "has_audio": scene.has_audio,
        "has_video": scene.has_video,
        "look": main.look,
        "timbre": main.timbre,
        "colour": main.colour,
        "radius": round(main.radius, 4),
        "pitch_hz": round(main.pitch_hz, 2),
        "texture": scene.texture,
        "ambience": scene.ambience,
        "num_sounding": len(scene.sounding),
        "num_silent": len(scene.silent),
    }


def _check_recipe(
    folder: pathlib.Path, config: SoundingShapesConfig, seed: int
) -> None:
    """Records the recipe of a folder; refuses to mix clips of two recipes in one."""
    path = folder / "generation.json"
    recipe = {"version": CONTENT_VERSION, "seed": seed, "config": config.content}
    text = json.dumps(recipe, indent=2, sort_keys=True) + "\n"
    if not path.exists():
        write_atomically(path, text)
    elif path.read_text() != text:
        raise UserError(
            f"{folder}: holds clips of another seed, configuration or version (see "
            "generation.json). Choose another folder or delete this one."
        )


def _run(tasks: list[Task], num_workers: int | None) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each task, once it is done."""
    with WorkerPool(num_workers) as pool:
        if pool.num_workers == 1 or len(tasks) < 2:
            yield from map(write_clips, tasks)
            return
        for outcome in pool.map(f"{__name__}:write_task", tasks, list[dict[str, Any]]):
            if outcome.reason is not None:
                raise UserError(outcome.reason.removeprefix("UserError: "))
            yield outcome.value


def write_task(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """`write_clips` in a worker, with the fields of the task."""
    return write_clips(messages.typed(Task, fields))


def write_clips(task: Task) -> list[dict[str, Any]]:
    """Writes some clips of one folder and returns their rows."""
    rows = []
    for index in task.indices:
        scene = scenes.sample(task.config, task.seed, task.split, index)
        path = pathlib.Path(task.folder, f"{scene.id}.mp4")
        write_clip(path, scene, task.config)
        rows.append(label_row(scene, task.config))
    return rows
