"""Make the learned models that come with worlds from finished runs, one for each world, and draw what they generate.

    python tools/learned_models.py runs/multimnist_quick runs/aerial2d_quick runs/driving_quick
    python tools/learned_models.py --pictures

The first line writes the folder WORLD_learned into the package of each run's world; the second one the pictures of
docs/worlds_gallery.md, each from a data set that one command writes.

Such a folder has the form of a run's, so whatever opens a run opens it too. Weights keep their full precision: then
equal seeds give the scenes of the run itself, to the byte.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from torch import stack
from torchvision.transforms.functional import to_tensor

from ms2.core.configurations import LEARNED_SUFFIX, learned_models
from ms2.core.errors import UserError
from ms2.core.files import read_json, write_json, write_tensors, write_text
from ms2.core.images import image_grid
from ms2.evaluation.run_card import run_card
from ms2.metrics.results import load_results
from ms2.models.checkpoints import PARAMETERS, STRUCTURE, read_checkpoint
from ms2.models.opening import OpenedModel, find_configuration, open_model

PICTURES = Path(__file__).parents[1] / "docs" / "images"
KEPT_SETTINGS = ("seed_everything", "world", "evaluation")
"""Settings of the run that stay, beside those of the learned models and of the target."""
COPIED = ("metrics.json", "histograms.json")
COLUMNS, ROWS = {"multimnist": 8, "aerial2d": 6}, 2
"""Images of a picture: columns by world, three by default."""


def world_of(opened: OpenedModel) -> tuple[str, Path]:
    """Return the name of a model's world, and the folder of its package.

    Raises:
        UserError: If the world is not one of ms2's.
    """
    module = type(opened.model.world.grammar).__module__.split(".")
    if module[:2] != ["ms2", "worlds"]:
        raise UserError(f"the grammar of {opened.name} is of the module {'.'.join(module)}, none of ms2's worlds")
    import ms2.worlds

    return module[2], Path(*ms2.worlds.__path__) / module[2]


def settings_of_run(run: str) -> dict[str, Any]:
    """Return what of a run's configuration says what was learned from what, and how it was measured."""
    found, _, _ = find_configuration(run)
    model = {key: found["model"][key] for key in ("structure", "parameters") if found["model"].get(key)}
    kept = {key: found[key] for key in KEPT_SETTINGS}
    return kept | {"model": model, "data": {"target": found["data"]["target"]}}


def make(run: Path, commit: str) -> Path:
    """Write the learned model of a run's world; return its folder.

    Args:
        run: The folder of the run.
        commit: The commit of the code that made the run; empty if unknown.

    Raises:
        UserError: If the run is not finished.
    """
    status = read_json(run / "run.json") if (run / "run.json").exists() else {}
    if not status.get("finished"):
        raise UserError(f"{run} is not the folder of a finished run: go on with 'ms2 fit', or name another one")
    opened = open_model(str(run))
    assert opened.weights is not None
    world, package = world_of(opened)
    folder = package / f"{world}{LEARNED_SUFFIX}"
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint, settings = read_checkpoint(opened.weights), settings_of_run(str(run))
    weights = {key: value for key, value in checkpoint["state_dict"].items() if key.startswith((STRUCTURE, PARAMETERS))}
    write_tensors(folder / "checkpoints" / "last.ckpt", {"state_dict": weights, "grammar": checkpoint["grammar"]})
    write_text(folder / "config.yaml", yaml.safe_dump({"name": folder.name, **settings}, sort_keys=False))
    write_json(folder / "run.json", {key: status[key] for key in ("settings", "code", "measured_with", "finished")})
    for name in COPIED:
        write_text(folder / name, (run / name).read_text(encoding="utf-8"))
    card = run_card(folder.name, load_results(run / "metrics.json"), opened.model, shipped=True)
    write_text(folder / "README.md", card + "\n".join(provenance(settings["data"]["target"], status["code"], commit)))
    return folder


def provenance(target: dict[str, Any], code: str, commit: str) -> list[str]:
    """Format the card's section about what is kept of the run, and about the target that it learned from.

    Args:
        target: Settings of the target.
        code: Fingerprint of the code that made the run.
        commit: Its commit; empty if unknown.
    """
    made_by = f"commit `{commit}`, " * bool(commit)
    rendered = target["class_path"].endswith("Synthetic")
    licence = " Its images are rendered by ms2, so the licence above is that of the weights too." * rendered
    return [
        "",
        "## What is included",
        "",
        "This folder has the form of a run's. `checkpoints/last.ckpt` holds the weights of what was learned, in full "
        "precision, and the grammar; the feature extractor and the state of the optimiser are left out, so learning "
        "can't go on from it. `config.yaml` leaves out the settings of stages and trainer, which are those of the "
        "command above. `histograms.json` has the distributions behind the distances. The code that made the run: "
        f"{made_by}fingerprint `{code}`. `python tools/learned_models.py RUN` makes such a folder.",
        "",
        f"The target, of which learning saw the images alone.{licence}",
        "",
        f"```yaml\n{yaml.safe_dump(target, sort_keys=False)}```",
        "",
    ]


def command(world: str) -> str:
    """Return the command that writes the data set of a picture."""
    return f"ms2 generate {world} --learned --num_scenes {COLUMNS.get(world, 3) * ROWS}"


def picture(root: Path, world: str) -> Image.Image:
    """Tile the images of a data set."""
    files = sorted((root / "images").glob("*.png"))
    images = stack([to_tensor(Image.open(file).convert("RGB")) for file in files])
    return Image.fromarray(image_grid(images, COLUMNS.get(world, 3)))


def draw() -> None:
    """Write the picture of each learned model."""
    for name in learned_models():
        world = name.removesuffix(LEARNED_SUFFIX)
        with tempfile.TemporaryDirectory() as folder:
            line = command(world).replace("ms2 ", f"{sys.executable} -m ms2 ", 1)
            subprocess.run(line, shell=True, check=True, cwd=folder)
            drawn = picture(Path(folder) / "data" / name, world)
        drawn.quantize(128).save(PICTURES / f"learned_{world}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs, of a world each")
    parser.add_argument("--commit", default="", help="the commit of the code that made the runs, for their cards")
    parser.add_argument("--pictures", action="store_true", help="draw the pictures of docs/worlds_gallery.md")
    args = parser.parse_args()
    try:
        for run in args.runs:
            folder = make(run, args.commit)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            print(json.dumps({"folder": folder.name, "bytes": size}))
    except UserError as error:
        sys.exit(f"learned_models.py: {error}")
    if args.pictures:
        draw()


if __name__ == "__main__":
    main()
