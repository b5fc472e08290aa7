#!/bin/sh
# Install ms2 with its dependencies into the Python that is first on PATH, and use it. The Dockerfile runs this in an
# image; tools/check_wheel.py (make dist) runs it in an empty environment, so that it is tested where no image can be built.
set -eu
what=${1:?"give a wheel, or the folder of a checkout"}

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
python -m pip install --no-cache-dir "$what"
python -m pip check
ms2 --version
ms2 lint MultiMNIST
