"""Environment variables by which torchrun, SLURM and other launchers number the processes of a run."""

import os

from ms2.core.errors import UserError

SIZES = {
    "RANK": "WORLD_SIZE",
    "LOCAL_RANK": "LOCAL_WORLD_SIZE",
    "GROUP_RANK": None,
    "NODE_RANK": None,
    "SLURM_PROCID": "SLURM_NTASKS",
    "SLURM_LOCALID": None,
    "SLURM_NODEID": None,
    "JSM_NAMESPACE_RANK": None,
}
"""Variables that number processes from 0, with the variable that holds how many there are."""


def process_number(name: str, default: int = 0) -> int:
    """Return the value of a variable that holds a whole number.

    Args:
        name: The variable.
        default: Value where it is not set.

    Raises:
        UserError: If it is set to anything else.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not (text.strip().isascii() and text.strip().isdigit()):
        raise UserError(
            f"the environment variable {name} is {text!r}, and must be a whole number: launchers such as torchrun and "
            f"srun number processes with it. To run one process, remove it: unset {name}"
        )
    return int(text)


def check_process_variables() -> None:
    """Check all variables that number processes; PyTorch Lightning reads them when it is imported.

    Raises:
        UserError: If one is no whole number, or a number is not below the number of processes.
    """
    for name, of in SIZES.items():
        number = process_number(name)
        if of is None or of not in os.environ:
            continue
        size = process_number(of)
        if size < 1 or (name in os.environ and number >= size):
            raise UserError(
                f"the environment variables {name}={os.environ.get(name, 'unset')} and {of}={os.environ[of]} do not "
                f"fit: processes are numbered from 0 to {of} - 1. To run one process, remove both: unset {name} {of}"
            )
