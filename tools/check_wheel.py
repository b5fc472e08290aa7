"""Install the built wheel into an empty environment, and use it there as somebody does who has no checkout.

Run by ``make dist``. The packages below BORROWED are linked from the environment that runs this program, as unpacking
their 5 GB takes minutes; all other dependencies are installed anew. ``--full`` installs those too.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

INSTALL = Path(__file__).absolute().with_name("install_image.sh")
"""What installs a wheel, in an image too."""
BORROWED = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)")
TINY = {
    "data.batch_size": "16",
    "extractor.max_steps": "2",
    "extractor.num_probe_images": "20",
    "pretraining.max_steps": "2",
    "pretraining.num_validation": "50",
    "data.target.num_images": "40",
    "evaluation.num_scenes": "50",
    "trainer.max_steps": "2",
    "trainer.val_check_interval": "1",
    "wandb": "disabled",
}
"""Settings of a run that takes seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=Path("dist"), help="folder with one wheel and one sdist")
    parser.add_argument("--full", action="store_true", help="install torch too, instead of linking it")
    args = parser.parse_args()
    (wheel,) = args.dist.glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder))
        if not args.full:
            environment.borrow()
        environment.install(wheel)
        check_use(environment)
    print(f"{wheel.name}: installed into an empty environment, a run made, a data set generated")


class Environment:
    """An empty virtual environment, and an empty folder that its commands run in.

    Args:
        folder: An empty folder for both.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.work = folder / "env" / "bin", folder / "work"
        self.work.mkdir()
        venv.create(folder / "env", with_pip=True)
        (self.packages,) = (folder / "env" / "lib").glob("python*/site-packages")

    def borrow(self) -> None:
        """Link the large packages from the environment that runs this program."""
        for found in distributions():
            if BORROWED.fullmatch(found.metadata["Name"]):
                for name in top_level(found):
                    link = self.packages / name
                    if not link.exists():
                        link.symlink_to(Path(str(found.locate_file(name))).absolute())

    def install(self, wheel: Path) -> None:
        """Install a wheel with its dependencies, as the Dockerfile does, and check that nothing is missing."""
        self.run("sh", str(INSTALL), str(wheel.absolute()))

    def run(self, program: str, *words: str, code: int = 0) -> str:
        """Run a program, of the environment if it has it; return what it prints, errors included."""
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        clean["PATH"] = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [program, *words],
            cwd=self.work,
            env=clean,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != code:
            sys.exit(f"{program} {' '.join(words)} ended with {done.returncode}, not {code}:\n{done.stdout}")
        return done.stdout


def top_level(distribution: Distribution) -> set[str]:
    """Folders and files of a package directly in site-packages; its programs are elsewhere."""
    return {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}


def check_use(environment: Environment) -> None:
    """Use the installed package: commands, a run by the name of its configuration, a data set, an extra's error."""
    run = environment.run
    run("python", "-c", "import importlib.util as u; assert not u.find_spec('pytest'), 'pytest is for tests alone'")
    expect(run("ms2", "--version"), r"ms2 \d+\.\d+\.\d+")
    expect(run("ms2", "configs"), "multimnist_quick")
    run("ms2", "fit", "--config", "multimnist_quick", *(w for key, value in TINY.items() for w in (f"--{key}", value)))
    run("ms2", "generate", "runs/multimnist_quick", "--num_scenes", "2", "--format", "coco", "--output", "data")
    for file in ("runs/multimnist_quick/metrics.json", "runs/multimnist_quick/summary.png", "data"):
        if not (environment.work / file).exists():
            sys.exit(f"the run wrote no {file}")
    said = run("ms2", "generate", "multimnist", "--learned", "--num_scenes", "2")
    expect(said, r"2 images: data/multimnist_learned")
    for world in ("multimnist", "aerial2d", "driving3d"):
        run("python", "-c", f"import ms2; assert ms2.load('{world}_learned').learned.structure")
    run("ms2", "new", "rooms")
    features = ("--model.features", "Backbone", "--model.features.architecture", "timm/resnet10t")
    layer = ("--model.features.layer", "layer2")
    said = run("ms2", "fit", "--config", "multimnist_quick", "--name", "extra", *features, *layer, code=2)
    expect(said, r"needs timm, which is not installed\. Try: pip install 'ms2\[timm\]'")


def expect(text: str, pattern: str) -> None:
    """End with an error if a text does not contain a pattern."""
    if not re.search(pattern, " ".join(text.split())):
        sys.exit(f"expected {pattern!r} in:\n{text}")


if __name__ == "__main__":
    main()
