"""Import of NVIDIA Warp and of the kernels."""

import atexit
import contextlib
import errno
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ms2.core.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType


CACHE_VARIABLE = "WARP_CACHE_PATH"
"""Environment variable with the folder in which Warp keeps compiled kernels."""


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
        problem = _init(warp)
    if problem is not None:
        warnings.warn(
            f"kernels are compiled anew in this run, as they can't be kept ({problem}): name a folder for them in the "
            f"environment variable {CACHE_VARIABLE}",
            stacklevel=2,
        )
    from ms2.render.engines.warp import kernels, shading

    return Runtime(warp, kernels, shading)


def _init(warp: Any) -> OSError | None:
    """Initialise Warp; with a temporary folder for compiled kernels where its own can't be written.

    The folder is named in an environment variable that Warp reads, for processes that this one starts.

    Returns:
        The error of writing to Warp's own folder, if any.
    """
    try:
        warp.init()  # a second call does nothing
        if not os.access(warp.config.kernel_cache_dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), warp.config.kernel_cache_dir)
    except OSError as error:
        folder = tempfile.mkdtemp(prefix="ms2-warp-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[CACHE_VARIABLE] = folder
        warp.config.kernel_cache_dir = folder
        warp.init()
        return error
    return None


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Suppress what C code writes to stderr: without a GPU, Warp reports that there is no CUDA driver."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
