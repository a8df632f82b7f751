"""What `make test-wheel` runs in an environment that has the wheel and nothing else.

From outside the checkout: recipes, builders, templates and the command are those of the
wheel, or not there.
"""

import importlib.resources
import json
import pathlib
import subprocess
import sys
import tempfile

import tfavmae
import tfavmae_datasets

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]


def command(*words):
    program = pathlib.Path(sys.executable).with_name("tfavmae")
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr[-2000:])
    return done.stdout


def main():
    site = pathlib.Path(tfavmae.__file__).parents[1]
    assert CHECKOUT not in (site, *site.parents) or ".venv-wheel" in site.parts
    assert command("--version").split() == ["tfavmae", tfavmae.__version__]
    recipes = importlib.resources.files("tfavmae_configs")
    assert len(list(pathlib.Path(str(recipes)).rglob("*.yaml"))) > 20
    builders = pathlib.Path(tfavmae_datasets.__file__).parent
    assert len(list(builders.glob("*/README.md"))) >= 15
    recipe = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"
    described = json.loads(command("describe", "--config", recipe, "--json"))
    assert described["tokens"] == {"audio": 48, "video": 64}
    with tempfile.TemporaryDirectory() as folder:
        # Data set, four runs, an export and a page: every part of the package.
        command("demo", "--quick", "--workdir", folder, "--quiet")
        page = pathlib.Path(folder, "report.html").read_text(encoding="utf-8")
        assert "<style" in page and len(page) > 50_000
    print(f"tfavmae {tfavmae.__version__} works with Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
