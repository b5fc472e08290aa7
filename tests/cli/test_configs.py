"""Every configuration that is shipped can be read and run, and a run's own configuration repeats it."""

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import CONFIGS, EXPECTED, command, fit, last, metrics_of, ms2, results_of, rng

from ms2.cli.fit import CLI
from ms2.core.configurations import load
from ms2.core.parsing import ArgumentParser
from ms2.core.registry import look_up
from ms2.core.settings import settings_of
from ms2.grammar.grammar import Grammar
from ms2.metrics.results import Results
from ms2.models.opening import parse_settings
from ms2.models.structure import StructureModel
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.driving3d import Driving

pytestmark = EXPECTED
NEEDS_DATA = {path for path in CONFIGS.glob("*.yaml") if "MS2_DATA" in str(load(path))}
OWN = (
    "world.structure_prior.init_args.max_digits",
    "world.structure_prior.init_args.max_roads",
    "world.structure_prior.init_args.max_cars",
    "data.target.init_args.structure_prior.init_args.max_digits",
    "model.structure.init_args.t_max",
    "model.structure.init_args.network",
)
"""Settings of tiny runs that are a configuration's own here."""
FEW = {"trainer__max_steps": 6, "trainer__val_check_interval": 3, "data__batch_size": 8, "pretraining__max_steps": 12}
CHEAPER: dict[str, dict[str, object]] = {
    "driving": {
        "data__target__init_args__num_images": 24,
        "evaluation__num_scenes": 24,
        "model__structure_learner__likelihood__num_images": 40,
    },
    "aerial2d_paper_256": {"data__target__init_args__num_images": 16, "evaluation__num_scenes": 24},
    "kitti_paper": {
        "trainer__val_check_interval": 6,
        "data__batch_size": 4,
        "data__target__init_args__limit": 10,
        "evaluation__num_scenes": 24,
        "evaluation__num_images": 10,
        "evaluation__image_distances__num_images": 10,
    },
    "kitti_quick": {
        "model__features__init_args__label_scale": 1.0,
        "extractor__num_probe_images": 40,
        "data__target__init_args__limit": 10,
        "evaluation__num_scenes": 24,
        "evaluation__num_images": 10,
        "evaluation__image_distances__num_images": 10,
    },
    "kitti_mixed": {
        "model__features__init_args__detected__init_args__label_scale": 1.0,
        "extractor__num_probe_images": 40,
        "data__target__init_args__limit": 10,
        "evaluation__num_scenes": 24,
        "evaluation__num_images": 10,
        "evaluation__image_distances__num_images": 10,
    },
    "kitti_parameters": {
        "extractor__num_probe_images": 40,
        "data__batch_size": 4,
        "data__target__init_args__limit": 10,
        "model__structure_learner__likelihood__num_images": 40,
        "model__features__init_args__label_scale": 1.0,
        "evaluation__num_scenes": 24,
        "evaluation__num_images": 10,
        "evaluation__image_distances__num_images": 10,
    },
    "kitti_pretrained": {
        "model__features__init_args__architecture": "squeezenet1_1",
        "model__features__init_args__layers": '["features.2", "features.3"]',
    },
}
"""Further settings that save seconds, by the beginning of a configuration's name."""
AS_IN_THE_PAPER = ("multimnist_paper", "multimnist_mmd", "kitti_paper")
"""Beginnings of the names of configurations whose features do not count, and whose lists t_max alone bounds."""
ALIKE = ("kitti_paper_suburban", "kitti_paper_urban")
"""Configurations that differ from one which runs to its end, kitti_paper_rural, by prior and scenario alone."""
every_config = pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=pytest.mark.skipif(path in NEEDS_DATA and "MS2_DATA" not in os.environ, reason="MS2_DATA is not set"),
        )
        for path in sorted(CONFIGS.glob("*.yaml"))
    ],
)


@every_config
def test_a_configuration_can_be_read(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        ms2(["fit", "--config", str(config), "--print_config"])
    said = capsys.readouterr()
    assert f"name: {config.stem}\n" in said.out, "a run is found under the name of its configuration"
    assert not said.err


def test_the_channel_is_measured_again_on_the_extractors_prior_unless_another_one_is_named() -> None:
    other = "--model.structure_learner.likelihood.structure_prior"
    named = [CLI(["--config", "driving_quick", *more], run=False) for more in ((), (other, "RandomStreets"))]
    found = [settings_of(cli.model.structure_learner.likelihood.structure_prior) for cli in named]
    assert found[0] == settings_of(named[0].config_init.extractor.structure_prior) != found[1]


@pytest.mark.filterwarnings("ignore:not read", "ignore:the features miscount", "ignore:more is read")
def test_results_say_which_numbers_kept_the_priors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ms2.features.channel.reading_quality", lambda *_: "not read")
    run = fit(tmp_path, "blind", model__structure_learner__likelihood='{"blocks": ["count", "count_7"]}')
    assert set(results_of(run).not_read) == {"count", "count_7"}
    said = "not read in images, so that the prior's numbers are kept: count, count_7"
    assert said in capsys.readouterr().out.splitlines()
    ms2(["test", "--config", str(run / "config.yaml"), "--evaluation.num_scenes", "20"])
    (tested,) = run.glob("test_*")
    assert results_of(tested).not_read == results_of(run).not_read


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("kitti*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("key", ["world", "pretraining"])
def test_learning_on_kitti_starts_with_scenes_without_cyclists(config: Path, key: str) -> None:
    """That each of the frames here holds one is known of their labels, which nothing may depend on."""
    described = load(config).get(key, {}).get("structure_prior")
    if described is None:  # the world's
        return
    parser = ArgumentParser()
    parser.add_argument("--prior", type=StructurePrior)
    _, found = parse_settings(parser, {"prior": described})
    grammar = Driving()
    scenes = scenes_from_derivations(grammar, found.prior.sample(grammar, 4000, rng()))
    has_none = (scenes.classes != grammar.classes.index("cyclist")).all(1)
    assert has_none.float().mean() > 0.2


@every_config
def test_a_configuration_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To its end with few and small images; whatever decides whether learning works out stays.

    That is grammar and priors, sequence network, list bounds, learning rate, objective and features. A warning is an
    error here, also that of lists which grow without bound.
    """
    monkeypatch.setattr("ms2.learning.resemblance.NUM_COMPARED", 8)  # not tested here: 64 take seconds
    [cheaper] = [more for name, more in CHEAPER.items() if config.stem.startswith(name)] or [{}]
    if config.stem in ALIKE:  # all checks that come before the first stage, which draw and render scenes
        ms2([*command(tmp_path, config, OWN, **FEW | cheaper), "--dry_run", "true"])
        assert (tmp_path / config.stem / "dry_run.png").is_file()
        return
    ms2(command(tmp_path, config, OWN, **FEW | cheaper))
    [run] = [folder for folder in tmp_path.iterdir() if folder.name != "cache"]
    assert run.name == config.stem
    counted = {"multimnist": "count", "digits": "count", "aerial2d": "roads", "driving": "cars", "kitti": "cars"}
    name = counted[config.stem.split("_")[0]]
    assert metrics_of(run)[f"{name}_tv"] >= 0
    if "kitti" in config.stem:
        assert {"cars_tv", "trucks_tv", "pedestrians_tv", "cyclists_tv"} <= set(metrics_of(run))
    elif not hidden_grammar(config):  # of real images nobody knows the rules
        assert metrics_of(run)[f"{name}_tv_best_pcfg"] >= 0
    if "aerial2d" in config.stem:
        expected = (
            "roads_tv",
            "cars_road1_mean",
            "cars_other_mean",
            "cars_road1_tv",
            "cars_other_tv",
            "joint_energy",
        )
        for key in expected:
            found = {f"{key}{ending}" for ending in ("", "_prior", "_best_pcfg")} & set(metrics_of(run))
            assert len(found) == (2 if hidden_grammar(config) else 3)
            assert key.endswith("mean") or f"{key}_noise_floor" in metrics_of(run)
    check_attributes(load(config), results_of(run))
    if config.stem.startswith("driving"):
        assert {"visible_cars_tv", "visible_poles_tv_prior", "visible_class_tv"} <= set(metrics_of(run))
        assert {"structure_mean_tv", "visible_mean_tv", "visible_mean_tv_noise_floor"} <= set(metrics_of(run))
    assert {file.name for file in run.iterdir()} >= {
        "README.md",
        "metrics.json",
        "summary.png",
        "rule_changes.png",
        "rule_changes.csv",
    }
    assert last(run)["global_step"] == FEW["trainer__max_steps"]


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_lists_are_counted_or_bounded(config: Path) -> None:
    """Features that cannot count let lists grow until scenes do not end within t_max, unless all bounds fit in it."""
    found = load(config)
    rules = found["world"]["grammar"]
    grammar = look_up(Grammar, rules)() if isinstance(rules, str) else Grammar(**rules["init_args"])
    settings = {key: found["model"]["structure"].get(key) for key in ("t_max", "max_length")}
    longest = StructureModel(grammar, **settings, max_tries=1)
    longest.head.bias.data = 1e4 * longest.extends_list.float()  # every list as long as it may be
    features = found["model"]["features"]
    counts = "max_count" in (features if isinstance(features, dict) else {}).get("init_args", {})
    if not counts and not config.stem.startswith(AS_IN_THE_PAPER):
        longest.sample(2, rng())  # raises an error if they exceed t_max


def hidden_grammar(config: Path) -> bool:
    """Whether the target's grammar is another than that of the world, whose probabilities then tell nothing of it."""
    return "grammar" in load(config)["data"]["target"]["init_args"]


def check_attributes(config: dict[str, Any], found: Results) -> None:
    """Distances of attributes are there, and of two normal distributions about that of their means.

    Nobody knows the attributes of real images.
    """
    statistics = [one["init_args"] for one in config.get("evaluation", {}).get("attribute_statistics", [])]
    known_attributes = "parameters" in config["model"] and "Kitti" not in str(config["data"]["target"])
    assert bool(statistics) == known_attributes == bool(found.attributes)
    known = config["world"]["parameter_prior"]
    hidden = config["data"]["target"]["init_args"].get("parameter_prior")
    for statistic in statistics:
        result = found.attributes[statistic["name"]]
        rows = result.distances["w1"]
        assert {"learned", "prior", "noise_floor"} <= set(rows) and all(row.value >= 0 for row in rows.values())
        low, high = rows["learned"].interval
        assert low <= rows["learned"].value <= high
        assert result.unit == ("°" if statistic.get("in_degrees") else statistic.get("unit", ""))
        if "class_path" in known and known["class_path"] == "NormalPlacement":
            (here, spread), (there, _) = (place["init_args"][statistic["attribute"]] for place in (known, hidden))
            assert rows["prior"].value == pytest.approx(abs(here - there), abs=spread / 2 + 1e-4)


def test_a_runs_own_configuration_repeats_it(tmp_path: Path) -> None:
    first = fit(tmp_path, "first", seed_everything=3)
    ms2(["fit", "--config", str(first / "config.yaml"), "--name", "again", "--runs_dir", str(tmp_path / "elsewhere")])
    again = tmp_path / "elsewhere" / "again"
    assert metrics_of(again) == metrics_of(first) != {}
    ours, theirs = last(again)["state_dict"], last(first)["state_dict"]
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    runs = [fit(tmp_path, f"run{seed}", seed_everything=seed) for seed in (0, 1)]
    assert metrics_of(runs[0]) != metrics_of(runs[1])


def test_testing_a_checkpoint_repeats_its_results(tmp_path: Path) -> None:
    run = fit(tmp_path, "run")
    found = metrics_of(run)
    (run / "metrics.json").unlink()
    ms2(["test", *command(tmp_path, name="run")[1:]])
    assert metrics_of(run) == found
