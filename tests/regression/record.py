"""Record sections again: ``python tests/regression/record.py [SECTION ...]``, all sections by default."""

import contextlib
import io
import json
import logging
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # for helpers.py, as pytest does

from recording import make_section
from sections import SECTIONS

RECORDED = Path(__file__).parent / "recorded"


def to_text(content: Any) -> str:
    """Write JSON with lists of numbers and names on one line each."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match[0]), json.dumps(content, indent=1))


def main(names: list[str]) -> None:
    """Record the sections of these names."""
    unknown = set(names) - set(SECTIONS)
    if unknown:
        sys.exit(f"there are no sections {', '.join(sorted(unknown))}: choose among {', '.join(SECTIONS)}")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    RECORDED.mkdir(exist_ok=True)
    for name in names or SECTIONS:
        path, started = RECORDED / f"{name}.json", time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            content = make_section(SECTIONS[name])
        path.write_text(to_text(content) + "\n")
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
