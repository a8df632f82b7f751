"""The rooms of the house: who may import whom, and what runs without TensorFlow."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tfavmae"

# A room imports only from itself and from those before it.
ROOMS = (
    "errors",
    "extras",
    "registration",
    "files",
    "class_metrics",
    "private_hooks",
    "model_garden",
    "pages",
    "media",
    "building",
    "data",
    "layers",
    "objectives",
    "models",
    "weights",
    "config",
    "training",
    "tasks",
    "serving",
    "report",
    "own_videos",
    "demo",
    "commands",
    "cli",
    "__main__",
)
WITHOUT_TENSORFLOW = ("layers", "objectives", "models")
TENSORFLOW = (
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_text",
    "tensorflow_hub",
    "tf_keras",
    "official",
)
BUILDERS_MAY_USE = {"errors", "files", "media", "building"}


def modules_below(folder):
    return sorted(folder.rglob("*.py"))


def names_imported(path, package):
    """Dotted names below `package` that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}:{node.lineno}: relative import")
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (f"{package}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module.startswith(f"{package}."):
                yield node.module
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (name for name in names if name.startswith(f"{package}."))


def room_of(dotted):
    return dotted.split(".")[1]


def rooms_imported(path):
    rooms = {room_of(name) for name in names_imported(path, "tfavmae")}
    return rooms - {"__version__"}


def files_in_rooms():
    for path in modules_below(PACKAGE):
        dotted = ".".join(["tfavmae", *path.relative_to(PACKAGE).with_suffix("").parts])
        if dotted != "tfavmae.__init__":
            yield pytest.param(path, room_of(dotted), id=dotted)


@pytest.mark.parametrize("path, room", files_in_rooms())
def test_a_room_imports_only_from_those_before_it(path, room):
    assert room in ROOMS, f"{path} is in no room; add it to ROOMS in its place"
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    assert rooms_imported(path) <= allowed


@pytest.mark.parametrize(
    "path",
    [p for p in modules_below(ROOT / "datasets")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_builders_use_only_building_and_what_stands_before_it(path):
    assert rooms_imported(path) <= BUILDERS_MAY_USE


@pytest.mark.parametrize(
    "path", modules_below(PACKAGE / "data"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_reading_data_needs_nothing_of_building_it(path):
    assert not rooms_imported(path) & {"media", "building"}


@pytest.mark.parametrize(
    "path",
    [*modules_below(PACKAGE / "building"), *modules_below(ROOT / "datasets")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_building_enters_media_through_one_door(path):
    assert set(names_imported(path, "tfavmae.media")) <= {"tfavmae.media.decode"}


@pytest.mark.parametrize(
    "path",
    [*modules_below(PACKAGE), *modules_below(ROOT / "datasets")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_one_file_takes_from_model_garden(path):
    nodes = list(ast.walk(ast.parse(path.read_text(), str(path))))
    names = [x.module or "" for x in nodes if isinstance(x, ast.ImportFrom)]
    names += [a.name for x in nodes if isinstance(x, ast.Import) for a in x.names]
    uses = [name for name in names if name.split(".")[0] == "official"]
    assert not uses or path.name == "model_garden.py"


@pytest.mark.parametrize(
    "path", modules_below(PACKAGE), ids=lambda p: str(p.relative_to(ROOT))
)
def test_only_those_who_take_files_of_the_user_know_the_builders(path):
    uses = list(names_imported(path, "tfavmae_datasets"))
    takes_files = ("tasks", "serving", "own_videos.py", "demo", "commands")
    if path.relative_to(PACKAGE).parts[0] not in takes_files:
        assert not uses


def test_no_room_of_odds_and_ends():
    names = {path.name for path in modules_below(PACKAGE)}
    assert not names & {"utils.py", "helpers.py", "misc.py", "common.py"}


def test_models_run_on_jax_without_tensorflow(fresh_python):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for room in WITHOUT_TENSORFLOW
        for path in modules_below(PACKAGE / room)
    ]
    out = fresh_python(
        _RUN_ON_JAX,
        *modules,
        blocked=TENSORFLOW,
        environment={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )
    assert out.strip().endswith("jax")


_RUN_ON_JAX = """
import importlib, sys
import numpy as np

for name in sys.argv[1:]:
    importlib.import_module(name)

import keras
from tfavmae.models.presets import build_pretraining

model = build_pretraining(
    "cav_mae", "tiny",
    audio=dict(num_frames=32, num_mel_bins=32),
    video=dict(height=32, width=32, tubelet_size=(1, 8, 8)),
)
batch = dict(
    audio=np.zeros((2, 8000), "int16"), video=np.zeros((2, 1, 32, 32, 3), "uint8")
)
assert np.isfinite(np.asarray(model(batch, masked=True)["audio_prediction"])).all()
assert not {"tensorflow", "official"} & set(sys.modules)
print(keras.backend.backend())
"""


def test_decoding_workers_do_not_need_tensorflow(fresh_python):
    generators = [
        f"tfavmae_datasets.sounding_shapes.{path.stem}"
        for path in modules_below(ROOT / "datasets" / "sounding_shapes")
        if path.stem != "__init__" and not path.stem.endswith(("_builder", "_test"))
    ]
    fresh_python(
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)",
        "tfavmae.media.decode",
        "tfavmae.building.decoding",
        *generators,
        blocked=(*TENSORFLOW, "keras"),
    )
