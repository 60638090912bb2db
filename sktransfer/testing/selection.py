"""Which checks an estimator gets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from inspect import getdoc
from pathlib import Path
from typing import Any

from sklearn.base import is_classifier, is_regressor
from sklearn.utils import estimator_checks as of_scikit_learn
from sklearn.utils.validation import has_fit_parameter

from sktransfer.testing import (
    classification,
    composition,
    features,
    inputs,
    regression,
    results,
    state,
    surroundings,
    targets,
    weights,
)
from sktransfer.testing.kinds import KINDS
from sktransfer.testing.samples import Sample

# Checks of scikit-learn that hand over no rows, or none that are read, and so run as they are. Some of them say
# nothing when they fail; hence the sentences.
_SCIKIT_LEARN_CHECKS = {
    of_scikit_learn.check_estimator_cloneable: "clone works on the estimator",
    of_scikit_learn.check_estimator_tags_renamed: "tags are given by __sklearn_tags__",
    of_scikit_learn.check_valid_tag_types: "tags have the types that sklearn.utils.Tags documents",
    of_scikit_learn.check_estimator_repr: "repr works",
    of_scikit_learn.check_no_attributes_set_in_init: "__init__ sets its parameters and nothing else",
    of_scikit_learn.check_do_not_raise_errors_in_init_or_set_params: "__init__ and set_params take any value",
    of_scikit_learn.check_mixin_order: "mixins stand before BaseEstimator among the bases",
    of_scikit_learn.check_parameters_default_constructible: "all parameters have simple defaults, stored as they are",
    of_scikit_learn.check_get_params_invariance: "get_params(deep=False) is a part of get_params(deep=True)",
    of_scikit_learn.check_set_params: "get_params gives back what set_params was given",
    of_scikit_learn.check_param_validation: "fit refuses parameters that _parameter_constraints does not allow",
}

_ALL = (
    state.check_unfitted,
    state.check_is_fitted_after_fit,
    state.check_fit_returns_self,
    state.check_fit_keeps_parameters,
    state.check_fit_sets_no_public_attributes,
    state.check_methods_keep_state,
    state.check_fit_idempotent,
    state.check_second_fit_forgets_first,
    state.check_set_params_takes_effect,
    state.check_clone_of_fitted,
    state.check_pickle,
    state.check_pickle_unfitted,
    state.check_memory_mapped_pickle,
    state.check_documentation,
    state.check_html_repr,
    inputs.check_list_unchanged,
    inputs.check_readonly_input,
    inputs.check_odd_rows,
    inputs.check_one_row,
    inputs.check_empty_input,
    inputs.check_missing_rows,
    inputs.check_wrong_rows,
    inputs.check_wrong_inputs,
    inputs.check_bare_row,
    inputs.check_sparse_input,
    inputs.check_several_columns,
    results.check_row_order,
    results.check_row_subsets,
    results.check_repeated_calls,
    results.check_threads,
    composition.check_pipeline,
    composition.check_search,
    composition.check_metadata_routing,
    surroundings.check_global_state,
    surroundings.check_no_deprecated_calls,
    surroundings.check_array_api_dispatch,
    targets.check_methods_take_y,
    targets.check_y_required,
    targets.check_n_iter,
)
_FOR_EACH_CONTAINER = (inputs.check_container, inputs.check_input_unchanged)
_FOR_EACH_FRAME = (inputs.check_columns, inputs.check_missing_in_frame)

_TRANSFORMERS = (
    results.check_transform_output,
    results.check_fit_transform,
    composition.check_feature_union,
)
_NAMED_FEATURES = (features.check_feature_names_out, features.check_set_output_default)
_NAMED_FEATURES_FOR_EACH_FRAME = (features.check_feature_names_out_of_frame, composition.check_column_transformer)
_FRAME_LIBRARIES = ("pandas", "polars")

_SUPERVISED = (
    targets.check_y_length,
    targets.check_y_missing,
    targets.check_y_containers,
    targets.check_y_unchanged,
    targets.check_y_column,
    targets.check_several_targets,
    targets.check_score,
)
_CLASSIFIERS = (
    classification.check_classes,
    classification.check_classifier_learns,
    classification.check_predict_proba,
    classification.check_decision_function,
    classification.check_one_class,
    classification.check_continuous_target,
    classification.check_class_weight,
)
_REGRESSORS = (
    regression.check_regressor_learns,
    regression.check_integer_target,
    regression.check_no_decision_function,
)
_WEIGHTS = (
    weights.check_weights_of_one,
    weights.check_weight_containers,
    weights.check_weights_unchanged,
    weights.check_weight_shape,
    weights.check_weights_of_zero,
    weights.check_weights_equal_copies,
    weights.check_one_class_left_by_weights,
)


# Name, contract in a sentence, and what holds an estimator against it, given a folder for files.
Selected = tuple[str, str, Callable[[Any, Path], None]]


def checks_for(estimator: Any, kind: str) -> Iterator[Selected]:
    """Yield the checks for an estimator that reads rows of a kind."""
    make = KINDS[kind]
    for theirs, contract in _SCIKIT_LEARN_CHECKS.items():
        if theirs is not of_scikit_learn.check_param_validation or hasattr(estimator, "_parameter_constraints"):
            yield _of_scikit_learn(theirs, contract)
    for check in _checks_of_type(estimator):
        yield check.__name__, _sentence(check), partial(_run, check, make)
    for check, name, case in _cases_for(estimator, kind):
        yield f"{check.__name__}[{name}]", _sentence(check), partial(_run, check, make, case=case)


def _checks_of_type(estimator: Any) -> Iterator[Callable[[Any, Sample], None]]:
    """Yield the checks that an estimator of this type gets once."""
    yield from _ALL
    if hasattr(estimator, "transform"):
        yield from _TRANSFORMERS
        if hasattr(estimator, "get_feature_names_out"):
            yield from _NAMED_FEATURES
    if is_classifier(estimator) or is_regressor(estimator):
        yield from _SUPERVISED
    if is_classifier(estimator):
        yield from _CLASSIFIERS
    if is_regressor(estimator):
        yield from _REGRESSORS
    if has_fit_parameter(estimator, "sample_weight"):
        yield from _WEIGHTS


def _cases_for(estimator: Any, kind: str) -> Iterator[tuple[Callable[..., None], str, Any]]:
    """Yield checks, and the name and maker of the case, for those that are run for several cases."""
    with tempfile.TemporaryDirectory() as folder:
        containers = KINDS[kind](Path(folder)).containers
    named = hasattr(estimator, "transform") and hasattr(estimator, "get_feature_names_out")
    for place, container in enumerate(containers):
        checks = [*_FOR_EACH_CONTAINER]
        if container.is_frame:
            checks += [*_FOR_EACH_FRAME, *(_NAMED_FEATURES_FOR_EACH_FRAME if named else ())]
        for check in checks:
            # By its place: the container itself writes to the folder of the sample that it belongs to.
            yield check, container.name, place
    if named:
        for library in _FRAME_LIBRARIES:
            yield features.check_set_output, library, library


def _run(
    check: Callable[..., None], make: Callable[[Path], Sample], estimator: Any, folder: Path, case: Any = None
) -> None:
    sample = make(folder)
    if case is None:
        check(estimator, sample)
    else:
        check(estimator, sample, sample.containers[case] if isinstance(case, int) else case)


def _of_scikit_learn(check: Callable[[str, Any], None], contract: str) -> Selected:
    def run(estimator: Any, folder: Path) -> None:
        try:
            check(type(estimator).__name__, estimator)
        except AssertionError as error:
            if str(error):
                raise
            raise AssertionError(f"{contract}. Seen: scikit-learn's own check fails, without a word.") from error

    return check.__name__, f"{contract[:1].upper()}{contract[1:]}.", run


def _sentence(check: Callable[..., None]) -> str:
    return (getdoc(check) or "").split("\n\n")[0]
