#!/usr/bin/env bash
# Builds the Python package's wheel and installs it, with what its tests need, into build/python. Arguments go to pip.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=python/tests/requirements.txt
stamp=build/python/requirements.txt
if ! [ -x build/python/bin/python ] || ! cmp -s "$requirements" "$stamp"; then
  rm -rf build/python
  python3 -m venv build/python
  build/python/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$stamp"
fi
# By the names that CMake finds, rather than those that this Python was built with: ccache tells them apart.
export CC=${CC:-cc} CXX=${CXX:-c++}
# Without isolation: the same nanobind each time, so that only what changed is compiled (in build/wheel).
rm -rf build/dist
build/python/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w build/dist "$@" .
build/python/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/dist/*.whl
