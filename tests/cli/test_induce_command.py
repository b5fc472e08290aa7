"""``ms2 induce``: from a labelled set to a world that can be read, and an account; bad input."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ms2.cli.commands import main
from ms2.core.parsing import ArgumentParser
from ms2.core.yaml_files import load_yaml
from ms2.grammar.grammar import Grammar
from ms2.models.checkpoints import STRUCTURE, grammar_metadata
from ms2.models.opening import open_model, parse_settings
from ms2.models.structure import StructureModel
from ms2.priors.histogram_placement import HistogramPlacement
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import ListLengthPrior
from ms2.scene.batch import scenes_from_derivations


def small_set(path: Path, num_images: int = 300) -> Path:
    """A COCO file: one or three plates, on each of which there are two peas or none, and a sun or not."""
    generator = torch.Generator().manual_seed(0)
    annotations = []

    def add(image: int, category: int, box: list[float]) -> None:
        annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box})

    for image in range(num_images):
        draws = torch.rand(12, generator=generator).tolist()
        if draws[0] < 0.3:
            add(image, 3, [90.0 * draws[1], 0, 9, 9])
        for k in range(1 if draws[2] < 0.5 else 3):
            x, y = 80 * draws[3 + k], 15.0 + 25 * k
            add(image, 1, [x, y, 20, 20])
            for j in range(2 if draws[6 + k] < 0.6 else 0):
                add(image, 2, [x + 2 + 8 * j, y + 4 + 6 * draws[9], 3, 3])
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in range(num_images)],
        "categories": [{"id": 1, "name": "plate"}, {"id": 2, "name": "green pea"}, {"id": 3, "name": "sun"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_world_and_its_account_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["induce", str(small_set(tmp_path / "set.json")), "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "plate -> Green_peas" in printed and "green pea inside plate: " in printed
    assert (tmp_path / "out" / "account.txt").read_text(encoding="utf-8") in printed
    world = load_yaml((tmp_path / "out" / "world.yaml").read_text(encoding="utf-8"))["world"]
    grammar = Grammar(**world["grammar"]["init_args"])
    prior = ListLengthPrior(**world["structure_prior"]["init_args"])
    assert grammar.classes == ("plate", "green_pea", "sun") and not grammar.lint()
    rules = prior.sample(grammar, 2000, torch.Generator().manual_seed(0))
    assert bool(prior.log_prob(grammar, rules).isfinite().all())
    described = load_yaml((tmp_path / "out" / "parameters.yaml").read_text(encoding="utf-8"))["world"]
    parser = ArgumentParser()
    parser.add_argument("--parameter_prior", type=ParameterPrior)
    places = parse_settings(parser, described)[1].parameter_prior
    assert isinstance(places, HistogramPlacement) and places.classes == ["plate", "green_pea", "sun"]
    assert places.ranges["sun"]["y"] == (0.045, 0.045)
    assert places.units == {"green_pea": {"x": "width", "y": "height"}}
    scenes = places.sample(scenes_from_derivations(grammar, rules), torch.Generator().manual_seed(0))
    of, pea = scenes.attributes, scenes.classes == 1
    inside = (of["x"] - scenes.parent_values(of["x"])) / 0.2  # a plate's width
    # a plate's first pea is 3.5 from its left edge of 20, the second 11.5
    assert 0.17 < float(inside[pea].min()) + 0.5 < 0.18 and 0.57 < float(inside[pea].max()) + 0.5 < 0.58


def test_classes_are_chosen_and_ordered(tmp_path: Path) -> None:
    source, out = small_set(tmp_path / "set.json", 50), tmp_path / "out"
    main(["induce", str(source), "--output", str(out), "--classes", "sun", "plate", "--parents", "none"])
    world = load_yaml((out / "world.yaml").read_text(encoding="utf-8"))["world"]
    assert world["grammar"]["init_args"]["renderable"] == ["sun", "plate"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--classes", "plaet"], "the scenes have no class 'plaet'. Did you mean 'plate'?"),
        (["--seconds", "0"], "seconds must be greater than 0, not 0"),
        (["--parents", "foud"], "foud"),
    ],
)
def test_bad_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    source = small_set(tmp_path / "set.json", 5)
    with pytest.raises(SystemExit) as end:
        main(["induce", str(source), "--output", str(tmp_path / "out"), *words])
    assert end.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = small_set(tmp_path / "set.json", 5)
    with pytest.raises(SystemExit):
        main(["induce", str(source), "--output", str(source)])
    assert "is a file: give --output a folder" in capsys.readouterr().err


def test_when_time_is_over_the_best_so_far_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["induce", str(small_set(tmp_path / "s.json")), "--output", str(tmp_path / "out"), "--seconds", "1e-6"])
    assert "The time was over before the search ended: this is the best so far" in capsys.readouterr().out
    assert (tmp_path / "out" / "world.yaml").is_file()


def test_only_runs_are_distilled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["distill", "multimnist", "--output", str(tmp_path / "out")])
    assert end.value.code == 2 and "multimnist has no trained structure model" in capsys.readouterr().err


def test_a_checkpoint_is_distilled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_model("multimnist", structure="prior")
    model = StructureModel(opened.model.world.grammar, t_max=24)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    settings = {"world": opened.settings["world"], "model": {"structure": {"init_args": {"t_max": 24}}}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    weights = {f"{STRUCTURE}{name}": value for name, value in model.state_dict().items()}
    torch.save(
        {"state_dict": weights, "grammar": grammar_metadata(model.grammar)},
        tmp_path / "run" / "checkpoints" / "last.ckpt",
    )
    words = ["--output", str(tmp_path / "out"), "--num_scenes", "400", "--loss", "1"]
    main(["distill", str(tmp_path / "run"), *words])
    assert "A probabilistic grammar without tables loses" in capsys.readouterr().out
    assert (tmp_path / "out" / "structure.yaml").is_file() and (tmp_path / "out" / "counts.json").is_file()
