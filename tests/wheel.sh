#!/bin/bash
# tests/wheel.sh FOLDER PYTHON...: builds an sdist and from it a wheel, installs the wheel in
# an empty environment of each Python that is there, and tries it from outside the checkout.
set -euo pipefail
folder=$1
package=build/package
tried=0
rm -rf "$folder" "$package"
.venv/bin/python -m build --quiet --outdir "$package" .
for python in "${@:2}"; do
  version=$("$python" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' \
    2> /dev/null) || { echo "== no $python with venv here"; continue; }
  here=$PWD/$folder/$version
  echo "== Python $version"
  "$python" -m venv "$here"
  "$here/bin/python" -m pip install --quiet --disable-pip-version-check "$package"/*.whl
  (cd "$package" && "$here/bin/python" -P ../../tests/wheel_smoke.py)
  tried=$((tried + 1))
done
[ $tried -gt 0 ] || { echo "error: found none of ${*:2}" >&2; exit 1; }
