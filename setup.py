"""Puts the folder configs into what is built, as ms2/configs; all metadata is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    """Copies the configurations beside the modules; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "ms2", "configs")
            shutil.rmtree(target, ignore_errors=True)  # an earlier build may hold files that are gone
            shutil.copytree("configs", target)


setup(cmdclass={"build_py": BuildWithConfigurations})
