"""Import of NVIDIA Warp and of the kernels."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ms2.core.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType


class Runtime(NamedTuple):
    """Warp and the modules of kernels."""

    warp: Any
    kernels: "ModuleType"
    shading: "ModuleType"


def load_warp() -> Runtime:
    """Import Warp without its start-up messages, and the kernels, which are compiled on first use and cached on disk.

    Raises:
        UserError: If Warp is not installed.
    """
    try:
        import warp
    except ImportError as error:
        raise UserError(
            "3D rendering needs NVIDIA Warp, which is not installed. Try: pip install warp-lang (it needs no GPU)"
        ) from error
    level = warp.config.log_level
    warp.config.log_level = max(level, warp.LOG_WARNING)
    with contextlib.nullcontext() if torch.cuda.is_available() else _silent_stderr():
        warp.init()  # a second call does nothing
    from ms2.render.engines.warp import kernels, shading

    return Runtime(warp, kernels, shading)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Suppress what C code writes to stderr: without a GPU, Warp reports that there is no CUDA driver."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
