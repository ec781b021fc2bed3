#!/usr/bin/env bash
# Makes build/venv with the pinned packages of tests/requirements.txt; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=build/venv/requirements.txt
if [ -x build/venv/bin/python ] && cmp -s tests/requirements.txt "$stamp"; then exit 0; fi
rm -rf build/venv
python3 -m venv build/venv
build/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
cp tests/requirements.txt "$stamp"
