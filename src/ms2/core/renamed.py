"""Earlier names of settings and classes, as in the tables of the changelog, to answer whoever still types them."""

from collections.abc import Iterable

from ms2.core.errors import suggest

RENAMED_SETTINGS = {
    "world.prior": "world.structure_prior",
    "world.parameters": "world.parameter_prior",
    "data.read_batch_size": "data.embedding_batch_size",
    "data.predict_images": "data.num_predict_images",
    "model.objective": "model.structure_learner.objective",
    "model.estimator": "model.structure_learner.advantage",
    "model.credit": "model.structure_learner.credit_assignment",
    "model.lr": "model.structure_learner.lr",
    "model.lr_decay": "model.structure_learner.lr_decay",
    "model.reject_weight": "model.structure_learner.reject_weight",
    "model.reject_threshold": "model.structure_learner.reject_threshold",
    "model.max_gradient": "model.structure_learner.max_grad_norm",
    "model.parameter_learning.order": "model.turns.schedule",
    "model.parameter_learning.share": "model.turns.parameter_fraction",
    "model.parameter_learning.average": "model.turns.ema_steps",
    "model.parameter_learning": "model.parameter_learner",
    "model.statistics": "evaluation.statistics",
    "model.measures": "evaluation.attribute_statistics",
    "model.eval_scenes": "evaluation.num_scenes",
    "model.eval_images": "evaluation.num_images",
    "model.realism": "evaluation.image_distances",
}
"""New name of a setting that has moved, by its earlier one."""

RENAMED_ARGUMENTS = {
    "apart": ("per_slot",),
    "average": ("ema_steps",),
    "by_parent": ("parents_per_class",),
    "canvas": ("canvas_size",),
    "cell": ("network",),
    "count_width": ("count_kernel_std",),
    "credit": ("credit_assignment",),
    "deviation": ("std", "init_std"),
    "digit": ("digit_size",),
    "digits": ("source",),
    "digits_root": ("mnist_root",),
    "empty_weight": ("background_weight",),
    "estimator": ("advantage",),
    "every": ("steps_between_rewards",),
    "examples": ("image_range",),
    "fixed": ("fixed_rule_weights",),
    "gaps": ("gap_blocks",),
    "heads": ("num_heads",),
    "hidden": ("network",),
    "items": ("parent_indices", "num_parents"),
    "layers": ("num_layers",),
    "layouts": ("probe_priors",),
    "least": ("eps",),
    "least_visible": ("min_visibility",),
    "levels": ("pyramid_levels",),
    "max_gradient": ("max_grad_norm",),
    "max_real": ("max_target_images",),
    "max_steps": ("t_max",),
    "most": ("max_length",),
    "noise": ("noise_dim",),
    "num_images": ("limit",),
    "of": ("classes", "child_class", "object_class", "block_classes"),
    "along": ("order_by",),
    "same": ("group_by",),
    "only": ("learned_attributes",),
    "orderly": ("row_fraction",),
    "order": ("schedule",),
    "parameters": ("parameter_prior",),
    "parent": ("parent_class",),
    "predict_images": ("num_predict_images",),
    "prior": ("structure_prior",),
    "probe_images": ("num_probe_images",),
    "read_batch_size": ("embedding_batch_size",),
    "reads": ("attribute_blocks",),
    "relative": ("relative_bandwidth", "relative_to_parent"),
    "resamples": ("num_resamples",),
    "share": ("parameter_fraction",),
    "steps": ("steps_per_reward",),
    "stop_after": ("patience",),
    "strips": ("lateral_bins",),
    "sure": ("count_threshold",),
    "turning": ("rotation",),
    "validate_every": ("val_check_interval",),
    "degrees": ("in_degrees",),
}
"""New names of a class's argument by its earlier one; which of them depends on the class."""

RENAMED_CLASSES = {
    "ParameterLearning": "ParameterLearner",
    "Exact": "Pathwise",
    "Reading": "StraightThrough",
    "FiniteDifferences": "FiniteDifference",
    "DenseLayout": "DenseAttributes",
    "Repetition": "ListLengthPrior",
    "Mixture": "MixturePrior",
    "Joint": "StructureVector",
    "AttributeOf": "AttributeValue",
    "Gap": "NeighbourGap",
    "AroundAPlace": "NormalPlacement",
    "OnALine": "LinePlacement",
}
"""New name of a class by its earlier one."""


def suggest_argument(name: str, names: Iterable[str]) -> str:
    """Format a suggestion for an argument's name: its new name if it was renamed, else the nearest; and all names."""
    names = list(names)
    new = [one for one in RENAMED_ARGUMENTS.get(name, ()) if one in names]
    return f"It is called {new[0]!r} now. {suggest('', names)}" if new else suggest(name, names)


def suggest_class(name: str, names: Iterable[str]) -> str:
    """Format a suggestion for the name of a class, as `suggest_argument`."""
    names, new = list(names), RENAMED_CLASSES.get(name.rpartition(".")[2])
    return f"It is called {new!r} now. {suggest('', names)}" if new in names else suggest(name, names)


def new_setting(key: str) -> str | None:
    """Return what a setting is called now, by its earlier dotted key; None if it was not renamed."""
    parts = [part for part in key.split(".") if part != "init_args"]
    for end in range(len(parts), 0, -1):
        new = RENAMED_SETTINGS.get(".".join(parts[:end]))
        if new is not None:
            return ".".join([new, *parts[end:]])
    return None
