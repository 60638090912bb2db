"""What the estimators over a backbone share: finding it, reading rows, columns, clones."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import narwhals.stable.v2 as nw
import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data
from torch import nn

from sktransfer._locks import ProcessLock
from sktransfer._parameters import plain
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.encoding import Run
from sktransfer.backbones.sklearn_models.fitted_models import find_model
from sktransfer.backbones.sources.loading import check_backbone, known_kind, load_backbone, reads_missing
from sktransfer.backbones.sources.model_objects import is_model_object
from sktransfer.caching import resolve_cache
from sktransfer.inputs.image_rows import refuse_one_image
from sktransfer.inputs.preparation import Preparation
from sktransfer.inputs.rows import Rows, read_rows
from sktransfer.inputs.table import TablePreparation
from sktransfer.inputs.table_columns import warn_of_columns
from sktransfer.runtime.device import resolve_device, resolve_precision

Method = TypeVar("Method", bound=Callable[..., Any])

_replacing = ProcessLock("attributes of estimators")
# Methods that change the estimator, and so work on itself.
_CHANGE = ("fit", "partial_fit", "set_")
_READ = ("__sktransfer_backbone__",)


# What a fit keeps of the columns of X.
OF_COLUMNS = ("n_features_in_", "feature_names_in_", "_image_shape")


class OneStateMixin:
    """An estimator that may be fitted anew, or get other parameters, while other threads predict with it.

    A fit sets all attributes in one step, with `_replace_fitted`. Methods and properties that read the estimator see it as it
    is when they are called, to their end. It comes before the other bases, so that it holds for scikit-learn's
    wrappers of methods too.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] != __name__.partition(".")[0]:
            return  # what users write is called on the estimator itself
        for name, member in list(vars(cls).items()):
            if name not in _READ and (name.startswith("_") or name.startswith(_CHANGE)):
                continue
            if isinstance(member, types.FunctionType):
                setattr(cls, name, of_one_state(member))
            elif isinstance(member, property) and member.fget is not None:
                setattr(cls, name, property(of_one_state(member.fget), doc=member.__doc__))

    def _as_it_is(self) -> Any:
        """Return an estimator with this one's attributes, which nobody changes."""
        made = object.__new__(type(self))
        with _replacing:
            made.__dict__.update(self.__dict__)
        return made

    def _replace_fitted(self, fitted: Mapping[str, Any], *, gone: Iterable[str] = ()) -> None:
        """Set what a fit has found, in one step.

        Parameters
        ----------
        fitted : mapping of str to object
            Attributes.
        gone : iterable of str
            Attributes of the last fit that this one need not have.
        """
        gone = set(gone)
        with _replacing:
            before = self.__dict__  # which lives on until the lock is let go: to free what is in it may run anything
            kept = {name: value for name, value in before.items() if name not in gone}
            self.__dict__ = {**kept, **fitted}

    def get_params(self, deep=True):  # noqa: D102 - scikit-learn's docstring
        return super(OneStateMixin, self._as_it_is()).get_params(deep=deep)

    def set_params(self, **params):  # noqa: D102
        with _replacing:
            return super().set_params(**params)

    def __getstate__(self):
        return super(OneStateMixin, self._as_it_is()).__getstate__()


def of_one_state(method: Method) -> Method:
    """Let a method see the estimator as it is when it is called, whatever other threads do to it meanwhile."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self._as_it_is(), *args, **kwargs)

    return call  # type: ignore[return-value]


class BackboneEstimator(OneStateMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An estimator with the parameters ``backbone``, ``weights``, ``modality``, ``device``, ``precision`` and ``cache``.

    After `fit` it has the attributes ``backbone_`` and, for rows that a network reads, ``_preparation``.
    """

    def _validate_params(self) -> None:
        super()._validate_params()
        check_backbone(self.backbone)

    def _backbone_for(self, kind: str | None) -> Any:
        """Return what is to be loaded for rows of a kind, None where only the backbone says what they are."""
        return self.backbone

    def _known_kind(self, X: Any) -> str | None:
        """Return the kind of rows, None where only rows or the backbone tell."""
        return known_kind(self.backbone) if self.modality == "auto" else self.modality

    def _resolve(self, X: Any, weights: np.ndarray | None = None) -> tuple[Backbone, Rows]:
        """Load the backbone and read `X` as the kind of rows that it reads, whichever of the two says what that is.

        An untrained network is made to measure for the rows, in which `weights` says what each of them counts.
        """
        kind = self._known_kind(X)
        rows = None
        if kind in ("table", "series") or (isinstance(self.backbone, str) and self.backbone == "auto" and kind is None):
            rows = read_rows(X, kind)
            kind = rows.kind
            rows = replace(rows, weights=weights)
        name = self._backbone_for(kind)
        backbone = load_backbone(name, weights=plain(self.weights), kind=kind, rows=rows)
        rows = rows or read_rows(X, backbone.kind)
        self._refuse_texts_in_tables(backbone, rows)
        return backbone, rows

    def _refuse_texts_in_tables(self, backbone: Backbone, rows: Rows) -> None:
        """Refuse free text where strings are read as categories."""
        if isinstance(backbone.preparation, TablePreparation):
            backbone.preparation.schema.check_fit(rows.values)

    def _warn_of_columns(self, backbone: Backbone, rows: Rows) -> None:
        """Warn of identifiers and dates in the table of a fit."""
        if isinstance(backbone.preparation, TablePreparation):
            warn_of_columns(rows.values)

    def _frozen_run(self, preparation: Preparation, *, batch_size: int | None = None, progress: bool = False) -> Run:
        """Say how the frozen network is run; these parameters take effect without a new fit."""
        device = resolve_device(self.device)
        dtype = resolve_precision(self.precision, device, preparation.kind)
        if preparation.exact and dtype == torch.float32 and device.type != "mps":  # which has no float64
            dtype = torch.float64
        return Run(
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            cache=resolve_cache(self.cache),
            progress=progress,
        )

    def _columns_of(self, X: Any, rows: Rows) -> dict[str, Any]:
        """Return what a fit keeps of the columns; nothing of this estimator is changed."""
        shell = type(self).__new__(type(self))
        shell.__dict__.update(self.get_params())
        shell._check_columns(X, rows, reset=True)
        return {name: value for name, value in vars(shell).items() if name in OF_COLUMNS}

    def _check_columns(self, X: Any, rows: Rows, *, reset: bool) -> None:
        """Keep or compare the columns' names and number; rows without columns have nothing to compare."""
        for name in ("n_features_in_", "feature_names_in_") if reset else ():
            self.__dict__.pop(name, None)
        is_frame = isinstance(nw.from_native(X, eager_only=True, pass_through=True), nw.DataFrame)
        if not is_frame and rows.kind == "table":
            X = np.asarray(rows.values if reset else rows.values.numbers)
        if rows.kind == "image" and reset:
            first = rows.values[0]
            self._image_shape = first.shape if isinstance(first, np.ndarray) else None
        elif rows.kind == "image":
            refuse_one_image(X, getattr(self, "_image_shape", None))
        # Time points are no columns: series of other lengths are welcome.
        if is_frame or (isinstance(X, np.ndarray) and X.ndim == 2 and rows.kind != "series"):
            validate_data(self, X, reset=reset, skip_check_array=True)

    def get_params(self, deep=True):
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Ignored: an estimator given as `backbone` is only read, so its parameters are not parameters of this one.

        Returns
        -------
        dict
            Values by name.
        """
        return super().get_params(deep=False)

    def set_params(self, **params):
        """Set parameters of this estimator.

        Parameters
        ----------
        **params : dict
            Values by name.

        Returns
        -------
        self : estimator
            The estimator itself.

        Raises
        ------
        ValueError
            If a name is no parameter, or one of the estimator's that is given as `backbone`.
        """
        for name in params:
            if name.startswith("backbone__"):
                raise ValueError(
                    f"{name} can't be set: an estimator given as backbone is fitted, and only read. Fit one for each "
                    "candidate and search over backbone=[FrozenEstimator(first), FrozenEstimator(second)]."
                )
        return super().set_params(**params)

    def __sklearn_clone__(self):
        # A module or a fitted estimator is only read, so clones share it: scikit-learn would copy a module's weights
        # for every candidate and fold, and make a fitted estimator an unfitted one. For the same reason its parameters
        # are not this estimator's, see `get_params`.
        shared = isinstance(self.backbone, nn.Module) or hasattr(self.backbone, "__sktransfer_backbone__")
        shared = shared or is_model_object(self.backbone)
        if not shared and find_model(self.backbone) is None:
            return super().__sklearn_clone__()
        shell = copy.copy(self)
        shell.backbone = "auto"
        cloned = super(BackboneEstimator, shell).__sklearn_clone__()
        cloned.backbone = self.backbone
        return cloned

    def __getstate__(self):
        state = dict(super().__getstate__())
        if "_preparation" in state:
            # The tokenizer comes back with the backbone.
            state["_preparation"] = state["_preparation"].changes()
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if "_preparation" in state:
            self._preparation = copy.copy(self.backbone_.preparation)
            self._preparation.__dict__.update(state["_preparation"])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        kind = self.modality if self.modality != "auto" else known_kind(self.backbone) or "auto"
        tags.input_tags.one_d_array = kind != "table"
        # Series may be a 2-D array too, but its columns are time points, not features.
        tags.input_tags.two_d_array = kind == "table"
        tags.input_tags.three_d_array = kind in ("auto", "image", "series")
        tags.input_tags.string = kind in ("auto", "text", "image")
        tags.input_tags.allow_nan = kind == "table" and reads_missing(self.backbone)
        return tags
