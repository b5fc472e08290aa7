"""Messages about misspelt settings: the accepted names, the nearest, and what an earlier name is called now."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ms2.cli import plugins
from ms2.core.errors import UserError
from ms2.core.explain import accepted_arguments, explain_error
from ms2.core.parsing import ArgumentParser
from ms2.core.registry import KINDS, available
from ms2.core.renamed import (
    RENAMED_ARGUMENTS,
    RENAMED_CLASSES,
    RENAMED_SETTINGS,
    new_setting,
    suggest_argument,
    suggest_class,
)
from ms2.core.settings import ArgumentNameError, Configured
from ms2.evaluation.evaluation import Evaluation
from ms2.features.backbone import InceptionPool3
from ms2.features.dense import DenseCounts
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.metrics.statistics import ObjectCount
from ms2.objectives.kde import KDE
from ms2.targets.folder import Folder
from ms2.world import World

plugins.load()


def parser() -> ArgumentParser:
    """A parser with settings like those of a run."""
    found = ArgumentParser(prog="ms2 try", exit_on_error=False)
    found.add_argument("--config", action="config")
    found.add_argument("--name", type=str, default="run")
    found.add_argument("--fresh", type=bool, default=False)
    for name in ("trainer", "extractor"):
        found.add_argument(f"--{name}.max_steps", type=int, default=1)
        found.add_argument(f"--{name}.val_check_interval", type=int, default=1)
    found.add_subclass_arguments(World, "world")
    for name in ("objective", "features"):
        found.add_subclass_arguments(KINDS[f"{name}s".replace("ss", "s")], f"model.{name}", required=False)
    found.add_argument("--evaluation.statistics", type=Sequence[KINDS["statistics"]] | None)  # type: ignore[misc]
    return found


WORDS: dict[str, tuple[str, str]] = {
    "an argument": (
        "--model.objective KDE --model.objective.bandwith 1",
        "there is no setting model.objective.bandwith. Did you mean bandwidth? Available: bandwidth",
    ),
    "an argument called otherwise before": (
        "--model.objective KDE --model.objective.relative true",
        "there is no setting model.objective.relative. It is called 'relative_bandwidth' now. Available: bandwidth",
    ),
    "a plug-in": ("--model.objective KDF", "Did you mean 'KDE'? Available: BatchMMD, EnergyDistance, ForwardKL, KDE"),
    "a plug-in called otherwise before": ("--model.features DenseLayout", "It is called 'DenseAttributes' now."),
    "a module": ("--model.features shapes_worl.Squares", "No module named 'shapes_worl', which 'shapes_worl.Squares'"),
    "a class of a module": (
        "--model.objective ms2.objectives.kde.KDF",
        "model.objective: module 'ms2.objectives.kde' has no class 'KDF'. Did you mean 'KDE'?",
    ),
    "a plug-in in a list": (
        "--evaluation.statistics [ObjectCoun]",
        "No plug-in among the statistics is called 'ObjectCoun'. Did you mean 'ObjectCount'?",
    ),
    "an option": ("--nmae x", "Did you mean --name?"),
    "an option of a section": ("--trainer.max_stps 3", "Did you mean --trainer.max_steps?"),
    "an option without its section": ("--max_steps 3", "Did you mean --trainer.max_steps or --extractor.max_steps?"),
    "an option that has moved": ("--model.eval_scenes 3", "It is called --evaluation.num_scenes now"),
    "an option called otherwise before": (
        "--extractor.validate_every 3",
        "It is called 'val_check_interval' now. Available: max_steps, val_check_interval.",
    ),
    "an option without its value": ("--fresh", "--fresh needs a value: --fresh true or false"),
    "another option without its value": ("--name", "--name needs a value: --name VALUE"),
    "one plug-in for a list": ("--evaluation.statistics ObjectCount", "evaluation.statistics must be a list, not Obj"),
    "a plug-in whose help is asked for": ("--model.features.help Densecounts", "Did you mean 'DenseCounts'? Available"),
    "an argument beside a class": (
        '--model.features {"class_path":"DenseCounts","widths":[4,4,4]}',
        "model.features: beside class_path there may only be init_args, not widths: arguments of Den",
    ),
    "a class that is not selected": (
        '--model.features {"class":"DenseCounts"}',
        "name a class with class_path, and give",
    ),
    "a word": ("multimnist", "Options begin with --: did you mean --config multimnist?"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("words", "message"), WORDS.values(), ids=WORDS)
def test_what_is_misspelt_is_answered_with_what_there_is(words: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        parser().parse_args(words.split())
    assert len(str(error.value)) < 700 and "class path" not in str(error.value)


def test_arguments_of_a_class_within_another_are_offered() -> None:
    message = (
        "Parser key \"model.structure_learner\":\n  Problem with given class_path 'ms2.StructureLearner':\n"
        "    Parser key \"objective\":\n      Problem with given class_path 'ms2.KDE':\n        {}"
    )
    for said in ("Option 'bandwith' is not accepted", "there is no setting bandwith. Available: x."):
        assert explain_error(message.format(said)) == (
            "model.structure_learner.objective: KDE has no setting 'bandwith'. Did you mean 'bandwidth'? "
            f"Available: {', '.join(sorted(accepted_arguments(KDE)))}."
        )


def test_methods_that_a_class_lacks_are_named() -> None:
    message = 'Parser key "world.renderer":\n  Expected an instantiatable class, but ms2.Renderer is abstract'
    assert explain_error(message) == "world.renderer: Renderer can't be used before it defines render, render_labelled"


def test_other_messages_stay() -> None:
    assert explain_error("what?") == "what?" == explain_error("what?", parser())
    assert explain_error("unrecognized arguments: --a") == "unrecognized arguments: --a"


def test_missing_arguments_of_a_plugin_are_named() -> None:
    message = (
        "Parser key \"data.target\":\n  Problem with given class_path 'ms2.Folder':\n"
        "    the following arguments are required: root"
    )
    assert explain_error(message) == "data.target: Folder needs root. Give --data.target.root ..."


def test_arguments_that_the_program_fills_in_are_not_offered() -> None:
    assert accepted_arguments(Folder) == ["root", "fit", "on_error", "limit"]
    assert accepted_arguments(InceptionPool3) == ["layer", "weights", "seed", "variant"]


# --- Python ---


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (KDE, {"bandwith": 1}, "KDE has no argument 'bandwith'. Did you mean 'bandwidth'? Available: "),
        (KDE, {"relative": True}, "KDE has no argument 'relative'. It is called 'relative_bandwidth' now."),
        (ObjectCount, {"of": "car"}, "ObjectCount has no argument 'of'. It is called 'classes' now."),
        (DenseCounts, {"levels": 2}, "DenseCounts has no argument 'levels'. It is called 'pyramid_levels' now."),
        (Folder, {"world": None, "path": "x"}, "Folder has no argument 'path'."),
    ],
)
def test_a_wrong_argument_in_python_is_answered_too(cls: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentNameError, match=re.escape(message)) as error:
        cls(**given)
    assert isinstance(error.value, TypeError) and isinstance(error.value, UserError)


def test_a_missing_argument_in_python_is_named() -> None:
    with pytest.raises(TypeError, match=r"missing a required argument|required positional argument"):
        Folder(world=None)  # type: ignore[call-arg]


# --- the tables of earlier names ---


def test_new_names_exist() -> None:
    classes = {name for kind in KINDS for name in available(kind)}
    assert {*RENAMED_CLASSES.values()} <= {*classes, "ParameterLearner"}
    sections = {"world": World, "data": TargetImages, "model": MetaSim2, "evaluation": Evaluation}
    for new in RENAMED_SETTINGS.values():
        section, name, *_ = new.split(".")
        assert name in accepted_arguments(sections[section]), new
    queue, arguments = [Configured], {"steps_between_rewards"}
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        arguments |= {*accepted_arguments(cls)}
    assert [new for new in RENAMED_ARGUMENTS.values() if not {*new} <= arguments] == []


def test_an_earlier_name_is_translated() -> None:
    assert new_setting("model.objective.init_args.bandwidth") == "model.structure_learner.objective.bandwidth"
    assert new_setting("model.parameter_learning.order") == "model.turns.schedule"
    assert new_setting("model.features") is None
    assert suggest_argument("of", ["classes", "x"]) == "It is called 'classes' now. Available: classes, x."
    assert suggest_argument("of", ["x"]) == "Available: x."
    assert suggest_class("ms2.Exact", ["Pathwise"]) == "It is called 'Pathwise' now. Available: Pathwise."
    assert all(isinstance(table, Mapping) for table in (RENAMED_SETTINGS, RENAMED_CLASSES))
