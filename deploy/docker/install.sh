#!/usr/bin/env bash
# Installs sam4em from a source tree into a new virtual environment and tries it: every RUN line of the Dockerfiles.
# .ci/run executes it too, so that an image that cannot be built is found where there is no Docker.
#
#   install.sh SOURCE FOLDER [EXTRAS]
#
# TORCH_INDEX_URL: where to take torch from, e.g. https://download.pytorch.org/whl/cpu; default: pip's own index.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: install.sh SOURCE FOLDER [EXTRAS]" >&2; exit 2; }
source=$(cd "$1" && pwd)
folder=$2
extras=${3:-cluster}

python3 -m venv "$folder"
export PATH="$folder/bin:$PATH" VIRTUAL_ENV="$folder" PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -n "${TORCH_INDEX_URL:-}" ]; then
    pip install -q --index-url "$TORCH_INDEX_URL" torch torchvision
fi
pip install -q "$source[$extras]"

# What a pod or a job will do first, from a folder that holds no source.
cd /
export PYTHONSAFEPATH=1
sam4em --version
sam4em models list
python -m dask scheduler --version
python -m dask worker --version
python - "$folder" <<'PYTHON'
import pathlib
import sys

import pipeline.run.cluster.gpu_preload
import sam4em_core

for module in (pipeline, sam4em_core):
    if not pathlib.Path(module.__file__).is_relative_to(pathlib.Path(sys.argv[1]).absolute()):
        sys.exit(f"{module.__name__} was imported from {module.__file__}, not from the new environment")
PYTHON
