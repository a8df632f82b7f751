#!/bin/bash
# tests/matrix.sh FOLDER PYTHON...: fast tests in two environments of each Python that is
# there. `newest` has the newest TensorFlow, Keras, PyAV and NumPy, without Model Garden,
# which allows no TensorFlow after 2.20; `floor` the oldest that setup.cfg allows on that
# Python. All are run; the exit status is that of the worst.
set -uo pipefail
folder=$1
worst=0
# What needs no recipe: recipes need Model Garden.
without_recipes="tests/layers tests/models tests/objectives tests/media tests/building"
# The first for which Model Garden has all that it needs, on each Python.
declare -A tensorflow=([3.11]=2.16 [3.12]=2.18 [3.13]=2.20)
pip() { "$here/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

try() {  # try NAME TESTS...: installs have been made in $here
  echo "== $1"
  "$here/bin/python" - <<'END'
import importlib.metadata as m
print(*(f"{n} {m.version(n)}" for n in ("tensorflow", "keras", "av", "numpy")), sep=", ")
END
  TF_CPP_MIN_LOG_LEVEL=3 "$here/bin/python" -m pytest -q -p no:cacheprovider \
    --numprocesses=auto --maxprocesses=2 --dist=loadfile "${@:2}"
  local status=$?
  [ $status -gt $worst ] && worst=$status
}

for python in "${@:2}"; do
  version=$("$python" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' \
    2> /dev/null) || { echo "== no $python with venv here"; continue; }

  here=$folder/$version-newest
  "$python" -m venv "$here"
  pip install --editable '.[dev]' || worst=1
  pip uninstall --yes tf-models-official tensorflow-text tf-keras
  # Beyond the bounds of setup.cfg, about which pip only complains.
  pip install --upgrade tensorflow keras av numpy 2> /dev/null || worst=1
  try "Python $version, newest, without Model Garden" $without_recipes

  here=$folder/$version-floor
  numpy=1.26; [ "$version" = 3.13 ] && numpy=2.1  # the first with wheels for it
  "$python" -m venv "$here"
  pip install --editable '.[dev]' "keras==3.12.*" "av==18.*" "numpy==$numpy.*" \
    "tensorflow==${tensorflow[$version]}.*" || { echo "== cannot be installed"; worst=1; continue; }
  try "Python $version, floor" $without_recipes tests/config
done
exit $worst
