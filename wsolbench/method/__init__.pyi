from .base import Method, NoConfig, PostHoc, Training, Untrained, create_method, evaluating, true_or_predicted
from .checkpoint import Layout, State, classifier_layout, prefixed
from .means import global_mean
from .param_groups import classifier_groups, decay_groups
from .precision import no_autocast, wide

__all__ = [
    "Layout",
    "Method",
    "NoConfig",
    "PostHoc",
    "State",
    "Training",
    "Untrained",
    "classifier_groups",
    "classifier_layout",
    "create_method",
    "decay_groups",
    "evaluating",
    "global_mean",
    "no_autocast",
    "prefixed",
    "true_or_predicted",
    "wide",
]
