"""What an export says of the run that it was made of: clips, card, lost accuracy."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tfavmae.config import yaml_text
from tfavmae.config.places import without_places
from tfavmae.data.pipeline import ClipSplit
from tfavmae.media.options import DecodeOptions
from tfavmae.models import model_card
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import example_inputs, signatures_of
from tfavmae.serving.stored_weights import StoredWeights
from tfavmae.tasks import search
from tfavmae.tasks.forward import forward
from tfavmae.tasks.trained import Trained
from tfavmae.training import factory, sharing


@dataclasses.dataclass(frozen=True)
class Cost:
    """What other weights change on the clips of a split.

    Attributes:
        num_clips: clips that were asked about.
        agreement: share of clips, or labels, with the same answer; of embeddings, the
            mean cosine.
        accuracy: of the model and of the export; `None` where clips have no class each.
    """

    num_clips: int
    agreement: float
    accuracy: tuple[float, float] | None

    def __str__(self) -> str:
        text = f"agreement {self.agreement:.4f} on {self.num_clips} clips"
        if self.accuracy is not None:
            before, after = self.accuracy
            text += f", accuracy {after:.4f} instead of {before:.4f}"
        return text


def form_of(loaded: Trained) -> ClipForm:
    """How clips become inputs, as in the evaluation of a run."""
    spec = factory.clip_spec(loaded.config.data, loaded.config.model, train=False)
    return ClipForm(spec, DecodeOptions(**loaded.run.stored_as))


def cost_of(loaded: Trained, split: ClipSplit, weights: StoredWeights) -> Cost:
    """Compares the model with and without other weights, on every clip of a split.

    Args:
        loaded: the run.
        split: its clips.
        weights: those to store.
    """
    model, labels = loaded.run.model, loaded.run.labels
    names = loaded.config.data.labels if labels is not None else ()
    batches = loaded.batches(split, names)
    kind = signatures_of(model, example_inputs(next(iter(batches))))[0]
    outputs = ["logits"] if labels else [f"{m}_embedding" for m in kind.modalities]
    before = forward(model, batches, outputs, names)
    with weights.scope():
        after = forward(model, batches, outputs)
    num_clips = len(next(iter(before.values())))
    if labels is None:
        cosines = [_cosine(before[name], after[name]) for name in after]
        return Cost(num_clips, float(np.mean(cosines)), None)
    if labels.multi_label:
        same = [(before[k] > 0) == (x > 0) for k, x in after.items()]
        return Cost(num_clips, float(np.mean(same)), None)
    same, right = [], []
    for key, logits in after.items():
        pair = [x.argmax(-1) for x in (before[key], logits)]
        head = key.removeprefix("logits").removeprefix("_") or names[0]
        same.append(pair[0] == pair[1])
        known = before[head] >= 0
        right.append([(x == before[head])[known].mean() for x in pair])
    was, now = np.mean(right, axis=0).tolist()
    return Cost(num_clips, float(np.mean(same)), (was, now))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.mean(np.sum(a * b, -1) / lengths))


def files_of(
    loaded: Trained, directory: str, weights: str, cost: Cost | None
) -> dict[str, Any]:
    """The model card of an export as `model_card.json` and `model_card.md`.

    Args:
        loaded: the run.
        directory: of the versions, whose name is the model's.
        weights: type of the stored weights.
        cost: what they change.
    """
    run, name = loaded.run, pathlib.Path(directory).name
    task = {
        **model_card.task_of(run.model),
        "step": run.step,
        "labels": run.labels and dataclasses.asdict(run.labels),
        "metrics": [*run.metrics] or sharing.measured(run.results),
    }
    recipe = yaml_text.to_yaml(without_places(run.config.as_dict()))
    text = model_card.render(run.model, task, name, data=run.data, recipe=recipe)
    served = {"weights": weights, "cost": cost and dataclasses.asdict(cost)}
    text += f"\n## Served weights\n\n{weights}"
    text += f": {cost}.\n" if cost else ".\n"
    content = {"name": name, **task, "data": run.data, "served": served}
    content["fingerprint"] = search.fingerprint(loaded)  # that of its indexes
    return {"model_card.json": content, "model_card.md": text}
