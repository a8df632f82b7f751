"""Packaging: what is installed, from where, with which data files."""

import configparser
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile

import pytest

import tfavmae

ROOT = pathlib.Path(__file__).resolve().parents[1]
INSTALLED_AS = {
    "tfavmae": ROOT / "tfavmae",
    "tfavmae_datasets": ROOT / "datasets",
    "tfavmae_configs": ROOT / "configs",
}


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(text):
    return [line for line in text.split("\n") if line.strip()]


def packages_on_disk():
    for name, folder in INSTALLED_AS.items():
        for path in sorted(folder.rglob("__init__.py")):
            yield ".".join([name, *path.parent.relative_to(folder).parts])


def test_the_list_of_packages_is_that_of_the_folders(setup_cfg):
    assert sorted(lines(setup_cfg["options"]["packages"])) == sorted(packages_on_disk())


def test_every_folder_with_modules_is_a_package():
    for folder in INSTALLED_AS.values():
        for path in folder.rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path.parent


def test_pyproject_holds_the_build_system_and_tools_only():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(content) == {"build-system", "tool"}
    assert "pytest" not in content["tool"]


def test_tensorboard_starts():
    command = [sys.executable, "-m", "tensorboard.main", "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"2\.\d+\.\d+", version.strip())


def test_requirements_are_ranges(setup_cfg):
    extras = [lines(text) for text in setup_cfg["options.extras_require"].values()]
    for requirement in sum(extras, lines(setup_cfg["options"]["install_requires"])):
        assert "==" not in requirement and "~=" not in requirement


def test_makefile_and_setup_cfg_agree_on_pythons(setup_cfg):
    makefile = (ROOT / "Makefile").read_text()
    pythons = re.search(r"^PYTHONS := (.*)$", makefile, re.M)[1].split()
    low, high = re.findall(r"3\.\d+", setup_cfg["options"]["python_requires"])
    assert pythons[0] == low
    assert int(pythons[-1].split(".")[1]) + 1 == int(high.split(".")[1])
    for python in pythons:
        assert f"Python :: {python}" in setup_cfg["metadata"]["classifiers"]


def test_the_version_is_the_same_everywhere():
    version = re.escape(tfavmae.__version__.split(".dev")[0])
    assert re.search(rf"^## {version}", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {version}", citation, re.M)


def test_import_is_light(fresh_python):
    out = fresh_python(
        "import sys, tfavmae, tfavmae.cli\n"
        "tfavmae.cli.build_parser()\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'av', 'matplotlib', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", tfavmae.__all__)
def test_public_names_exist(name):
    assert getattr(tfavmae, name) is not None
    assert name in dir(tfavmae)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'mask_ratio'"):
        _ = tfavmae.mask_ratio


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    unwanted = shutil.ignore_patterns("__pycache__")
    for path in INSTALLED_AS.values():
        shutil.copytree(path, source / path.name, ignore=unwanted)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*build, "--quiet", "--wheel-dir", str(folder), str(source)],
        check=True,
        timeout=300,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_installs_nothing_named_datasets(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {
        "tfavmae",
        "tfavmae_configs",
        "tfavmae_datasets",
    }


def test_the_wheel_carries_recipes_and_data_files(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for installed, folder in INSTALLED_AS.items():
        for pattern in (
            "*.py",
            "*.yaml",
            "*.html",
            "*.css",
            "*.js",
            "*.md",
            "*.bib",
            "*.txt",
        ):
            for path in folder.rglob(pattern):
                assert f"{installed}/{path.relative_to(folder)}" in names


def test_the_wheel_works_where_the_sources_are_not(wheel, tmp_path, fresh_python):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    out = fresh_python(
        "import importlib.util, tfavmae, tfavmae_datasets.sounding_shapes as shapes\n"
        "import tfavmae_configs\n"
        "from importlib import resources\n"
        "recipes = list(resources.files('tfavmae_configs').rglob('*.yaml'))\n"
        "print(tfavmae.__file__, shapes.__file__, recipes[0], sep='\\n')",
        environment={"PYTHONPATH": str(site)},
    )
    assert all(line.startswith(str(site)) for line in out.split()), out


@pytest.fixture
def python_named(tmp_path):
    """A pretended interpreter of a given version, which only knows that version."""

    def write(version):
        path = tmp_path / f"python{version}"
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


@pytest.mark.parametrize("version", ["3.10", "3.14", "2.7"])
def test_other_pythons_are_refused_in_one_line(version, python_named, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "pyproject.toml").touch()
    done = subprocess.run(
        ["make", "install", f"PYTHON={python_named(version)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert "needs one of Python 3.11" in said[0] and f"={version}" in said[0]
    assert not (tmp_path / ".venv").exists()


def test_an_installed_environment_is_left_alone(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    done = subprocess.run(
        ["make", "install"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Nothing to be done" in done.stdout


def test_continuous_integration_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text()
    assert "make test" in text and "TFAVMAE_GOLDEN" in text
    subprocess.run(["bash", "-n", str(script)], check=True)
