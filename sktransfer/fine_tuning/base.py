"""What the estimators that train a network share: from parameters and rows to a call of `tune`, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import column_or_1d, estimator_html_repr
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import nn

from sktransfer._compat import StrOptions
from sktransfer._containers import as_container
from sktransfer._labels import check_targets
from sktransfer._locks import ProcessLock
from sktransfer._parameters import path_or_name, plain, plain_parameters, random_states, real, share_of_rows, whole
from sktransfer._row_weights import check_row_weights, of_mean_one, times
from sktransfer.backbone_estimator import OF_COLUMNS, BackboneEstimator
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.pooling import POOLINGS
from sktransfer.backbones.readout import pooling_modes
from sktransfer.backbones.sources import architectures
from sktransfer.backbones.splitting.stages import check_depth, resolve_depth
from sktransfer.caching import resolve_cache
from sktransfer.fine_tuning import configuration, holdout
from sktransfer.fine_tuning.configuration import Start
from sktransfer.inputs.augmentation import check_augment
from sktransfer.inputs.image_rows import refuse_one_image
from sktransfer.inputs.rows import KINDS, Rows, about, read_rows
from sktransfer.runtime.device import PRECISIONS, resolve_device, resolve_precision, warn_of_shared_gpu
from sktransfer.runtime.global_settings import known_settings, without_inference_tensors
from sktransfer.runtime.seeding import one_fit_at_a_time, own_random_state
from sktransfer.training.cut import cut_at
from sktransfer.training.inference import run_network
from sktransfer.training.network import TunableNetwork
from sktransfer.training.objective import ObjectiveFactory, Samples, Supervision
from sktransfer.training.observers import EpochTasks, ProgressBar
from sktransfer.training.plan import Plan
from sktransfer.training.rows import NetworkRows
from sktransfer.training.settings import LR_SCHEDULERS, OPTIMIZERS
from sktransfer.training.source_shift import source_shift
from sktransfer.training.stage_table import stages_html
from sktransfer.training.targets import Targets
from sktransfer.training.tuning import tune

_Part = tuple[Any, Any, Any]  # rows, targets, weights


class TunedEstimator(CallbackSupportMixin, BackboneEstimator):
    """An estimator that trains stages of a network and a head.

    Classifiers and regressors say what targets are; parameters and attributes are documented there.
    """

    _split_seed: int | None
    _parameter_constraints: dict = {
        "backbone": "no_validation",
        "freeze_depth": "no_validation",
        "learning_rate": [real(0, closed="right"), StrOptions({"auto"})],
        "head_lr_ratio": [real(0, closed="right")],
        "layer_decay": [real(0, 1, closed="right")],
        "unfreeze_every": [whole(1), None],
        "l2_sp": [real(0)],
        "head": [StrOptions({"linear", "mlp"}), nn.Module, callable],
        "head_init": [StrOptions({"probe", "random"})],
        "freeze_batch_norm": [StrOptions({"auto"}), "boolean"],
        "augment": [StrOptions({"auto"}), callable, None],
        "max_epochs": [whole(0), StrOptions({"auto"})],
        "batch_size": [whole(1)],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "weight_decay": [real(0)],
        "warmup_ratio": [real(0, 1, closed="left")],
        "lr_scheduler": [StrOptions(set(LR_SCHEDULERS))],
        "max_grad_norm": [real(0, closed="right"), None],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": share_of_rows(),
        "n_iter_no_change": [whole(1), None],
        "weight_interpolation": [real(0, 1)],
        "stability_every": [whole(1), None],
        "source_probe": [tuple, list, None],
        "pooling": [StrOptions({"auto", *POOLINGS}), list, tuple],
        "modality": [StrOptions({"auto", *KINDS})],
        "weights": [path_or_name(), None],
        "max_length": [whole(1), None],
        "prompt": [str, None],
        "device": [str, torch.device],
        "precision": [StrOptions(set(PRECISIONS))],
        "cache": "no_validation",
        "warm_start": ["boolean"],
        "random_state": random_states(),
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="auto",
        *,
        freeze_depth="auto",
        learning_rate="auto",
        head_lr_ratio=10,
        layer_decay=0.9,
        unfreeze_every=None,
        l2_sp=0.0,
        head="linear",
        head_init="probe",
        freeze_batch_norm="auto",
        augment=None,
        max_epochs="auto",
        batch_size=32,
        optimizer="adamw",
        weight_decay=0.01,
        warmup_ratio=0.1,
        lr_scheduler="cosine",
        max_grad_norm=1.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=5,
        weight_interpolation=1.0,
        stability_every=None,
        source_probe=None,
        pooling="auto",
        modality="auto",
        weights=None,
        max_length=None,
        prompt=None,
        device="auto",
        precision="float32",
        cache="memory",
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.freeze_depth = freeze_depth
        self.learning_rate = learning_rate
        self.head_lr_ratio = head_lr_ratio
        self.layer_decay = layer_decay
        self.unfreeze_every = unfreeze_every
        self.l2_sp = l2_sp
        self.head = head
        self.head_init = head_init
        self.freeze_batch_norm = freeze_batch_norm
        self.augment = augment
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.warmup_ratio = warmup_ratio
        self.lr_scheduler = lr_scheduler
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.weight_interpolation = weight_interpolation
        self.stability_every = stability_every
        self.source_probe = source_probe
        self.pooling = pooling
        self.modality = modality
        self.weights = weights
        self.max_length = max_length
        self.prompt = prompt
        self.device = device
        self.precision = precision
        self.cache = cache
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        check_depth(self.freeze_depth)
        pooling_modes(self.pooling)
        check_augment(self.augment)

    # Fit

    @known_settings()
    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        *,
        factory: ObjectiveFactory | None = None,
    ) -> Any:
        """Fit to targets, or to what a factory makes of the rows' indices."""
        with one_fit_at_a_time():
            return self._fit_alone(X, y, sample_weight, X_val, y_val, sample_weight_val, factory)

    def _fit_alone(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        X_val: Any,
        y_val: Any,
        sample_weight_val: Any,
        factory: ObjectiveFactory | None,
    ) -> Any:
        device = self._check_request(X_val, y_val, sample_weight_val)
        arguments = {"estimator": self, "X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        earlier = self._network if self.warm_start and hasattr(self, "_network") else None
        X = self._rows_in(X, earlier)
        if X_val is not None:
            with about("X_val"):
                X_val = self._rows_in(X_val, earlier)
        random = own_random_state(self.random_state)
        request = (X, y, sample_weight), (X_val, y_val, sample_weight_val)
        training, held_out, targets, split_seed = self._divided(*request, earlier, random, factory)
        n_rows = len(training.y) + (0 if held_out is None or X_val is not None else len(held_out.y))
        start = self._start(training, earlier)
        values_val = None if held_out is None else self._validation_values(start, training.X, held_out.X)
        plan = self._plan(start, device, random, n_rows=n_rows, validates=held_out is not None)
        objective = (factory or Supervision()).objective(targets, training, held_out)

        root = self._init_callback_context(max_subtasks=plan.settings.max_epochs)
        root.call_on_fit_task_begin(**arguments)

        def make_observers(network: TunableNetwork) -> list[Any]:
            fitted = self._fitted_attributes(start, targets, network)
            has_callbacks = hasattr(self, "_skl_callbacks")
            observers: list[Any] = [EpochTasks(root, arguments, lambda: fitted)] if has_callbacks else []
            return [*observers, ProgressBar(type(self).__name__)] if self.verbose else observers

        made = tune(
            start.backbone,
            start.preparation,
            start.values,
            values_val,
            objective,
            plan,
            earlier=earlier,
            make_observers=make_observers,
        )
        # Nothing is set before all has gone well: a failed fit leaves the estimator as it was.
        fitted = self._fitted_attributes(start, targets, made.network) | {
            "_split_seed": split_seed,
            "history_": made.history,
            "n_epochs_": made.n_epochs,
            "stability_": made.stability,
            "source_shift_": start.source_shift,
            "stages_": made.network.stage_table(made.rates or plan.rates),
            "lineage_": self._lineage(start, targets, len(training.y), made.n_epochs, factory),
        }
        if earlier is None:
            fitted |= {"_begun_from": start.named, "_begun_head": self.head, "_begun_pooling": plan.pooling}
        self._replace_fitted(fitted, gone=OF_COLUMNS)
        root.call_on_fit_task_end(**arguments)
        return self

    def _check_request(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> torch.device:
        """Check what can be checked without a look at the rows, and return the device."""
        self._validate_params()
        if self.backbone is self:
            raise ValueError("backbone is this estimator itself. To go on from its last fit set warm_start=True.")
        device = resolve_device(self.device)
        resolve_precision(self.precision, device, "text")
        warn_of_shared_gpu(device)
        resolve_cache(self.cache)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both or neither.")
        if sample_weight_val is not None and X_val is None:
            raise ValueError("sample_weight_val was given without X_val and y_val.")
        if self.source_probe is not None:
            _check_source(self.source_probe)
        if X_val is not None and not self.early_stopping:
            raise ValueError("X_val serves to choose the best epoch, but early_stopping=False. Leave one of them out.")
        if self.source_probe is not None and self.stability_every is None:
            raise ValueError(
                "source_probe is for the stability record: set stability_every=1 as well, or leave it out."
            )
        return device

    def _divided(
        self,
        given: _Part,
        given_val: _Part,
        earlier: TunableNetwork | None,
        random: np.random.RandomState,
        factory: ObjectiveFactory | None,
    ) -> tuple[Samples, Samples | None, Targets, int | None]:
        """Check rows, targets and weights, and say which rows are trained on and which choose the best epoch.

        Returns
        -------
        training : Samples
            Rows of weight zero are left out.
        held_out : Samples or None
            The validation samples; None without.
        targets : Targets
            What the targets are.
        split_seed : int or None
            From which seed rows were held back; None where they never were.
        """
        X, y, sample_weight = given
        y, weights = self._checked(X, y, sample_weight)
        class_weights = self._class_weights(y, weights, None if earlier is None else self._targets)
        all_rows = holdout.weighted(X, y, times(weights, holdout.of_each(class_weights, y)))
        targets = factory.targets(all_rows) if factory is not None else self._targets_of(all_rows, earlier)
        split_seed: int | None = None if earlier is None else self._split_seed
        X_val, y_val, sample_weight_val = given_val
        if X_val is not None:
            with about("X_val, y_val or sample_weight_val"):
                y_val, weights_val = self._checked(X_val, y_val, sample_weight_val)
                of_val = times(weights_val, holdout.of_each(class_weights, y_val))
                held_out = holdout.weighted(X_val, y_val, of_val)
            self._check_known(held_out.y, targets, "y_val")
            return all_rows, held_out, targets, split_seed
        solved = earlier is None and factory is None and self._is_solved(all_rows.X)
        if not self._validates(all_rows.y) or self.max_epochs == 0 or solved:
            return all_rows, None, targets, split_seed
        drawn = int(random.randint(2**31 - 1))
        split_seed = drawn if split_seed is None else split_seed  # validation samples are never trained on
        fraction = plain(self.validation_fraction)
        training, held_out = holdout.split(all_rows, fraction, self._strata, split_seed)
        if factory is None:  # which may teach a class without a row
            self._check_training(training.y, all_rows.y)
        return training, held_out, targets, split_seed

    def _targets_of(self, samples: Samples, earlier: TunableNetwork | None) -> Targets:
        """Return what the targets are, those of the fit that is gone on from if there is one."""
        raise NotImplementedError

    def _check_training(self, y: np.ndarray, all_y: np.ndarray) -> None:
        """Refuse training samples that lack what only validation samples have."""

    def _rows_in(self, X: Any, earlier: TunableNetwork | None) -> Any:
        """Bring rows into a container that can be indexed, and refuse one image, before any row is held back."""
        X = as_container(X)
        kind = self._known_kind(X)
        # A network whose kind is not known yet may read two dimensions, but of three only images.
        if kind == "image" or (kind is None and getattr(X, "ndim", 1) == 3):
            refuse_one_image(X, None if earlier is None else getattr(self, "_image_shape", None))
        return X

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
        """Check targets and weights."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")
        y = self._checked_y(y)
        check_consistent_length(X, y)
        if not len(y):
            raise ValueError("Found 0 samples in X, while there must be rows to learn from.")
        return y, of_mean_one(check_row_weights(sample_weight, X))

    def _class_weights(self, y: np.ndarray, weights: np.ndarray, earlier: Targets | None) -> dict[Any, float]:
        """Return the weight of each class, those of the fit that is gone on from included; others weigh 1."""
        return {}

    def _validates(self, y: np.ndarray) -> bool:
        """Whether to hold rows back to choose the best epoch."""
        if self.early_stopping != "auto":
            return bool(self.early_stopping)
        return len(y) >= configuration.MANY_ROWS and self._enough_to_split(y)

    def _enough_to_split(self, y: np.ndarray) -> bool:
        return True

    def _is_solved(self, X: Any) -> bool:
        """Whether the probe is all there is to learn, so that there are no epochs to choose from."""
        if self.head != "linear" or self.head_init != "probe" or self.augment is not None:
            return False
        kind = self._known_kind(X)
        if kind is None and self._is_auto:
            kind = read_rows(X, None).kind
        if architectures.kind_of(self._backbone_for(kind)) is not None:
            return False
        if isinstance(self.freeze_depth, str):
            return self.freeze_depth == "all"
        backbone, rows = self._resolve(X)
        preparation = backbone.preparation.with_options(max_length=plain(self.max_length), prompt=plain(self.prompt))
        stages = backbone.find_stages(preparation.fitted_to(preparation.read(rows.values)))
        return resolve_depth(self.freeze_depth, stages) == len(stages)

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        return None

    def _backbone_for(self, kind: str | None) -> Any:
        untrained = configuration.UNTRAINED
        return untrained[kind] if self._is_auto and kind in untrained else self.backbone

    def _known_kind(self, X: Any) -> str | None:
        kind = super()._known_kind(X)
        # Several columns are a table, which a network made for the rows reads, whatever the columns hold.
        shape: tuple[int, ...] = getattr(X, "shape", ())
        if kind is None and self._is_auto and len(shape) == 2 and shape[1] > 1:
            return "table"
        return kind

    @property
    def _is_auto(self) -> bool:
        return isinstance(self.backbone, str) and self.backbone == "auto"

    def _start(self, training: Samples, earlier: TunableNetwork | None) -> Start:
        """Load the network, or go on from the tuned one, and prepare the training rows for it."""
        X = training.X
        backbone, rows = self._resolve(X, training.weights) if earlier is None else self._resume(X)
        named, untrained = self._backbone_for(backbone.kind), None
        if architectures.kind_of(named) is not None:
            untrained = partial(architectures.untrained, named, backbone.preparation)
        preparation = backbone.preparation.with_options(max_length=plain(self.max_length), prompt=plain(self.prompt))
        values = preparation.read(rows.values)
        columns = self._columns_of(X, Rows(rows.kind, values))
        self._warn_of_columns(backbone, rows)
        preparation = preparation.fitted_to(values)
        from_random = untrained is not None or (isinstance(self.weights, str) and self.weights == "random")
        shift, depth = None, 0  # there is nothing in an untrained network worth keeping
        if not from_random:
            shift = source_shift(backbone, preparation, values, keep=resolve_cache(self.cache) is not None)
        if untrained is None:
            asked_for = configuration.depth_asked_for(self.freeze_depth, shift)
            depth = resolve_depth(asked_for, backbone.find_stages(preparation))
        named = backbone.fingerprint if untrained is None else named
        return Start(backbone, preparation, values, columns, named, untrained, from_random, shift, depth)

    def _validation_values(self, start: Start, X: Any, X_val: Any) -> Any:
        """Prepare validation rows."""
        with about("X_val"):
            _check_same_columns(X, X_val)
            rows = read_rows(X_val, start.backbone.kind)
            self._refuse_texts_in_tables(start.backbone, rows)
            return start.preparation.read(rows.values)

    def _resume(self, X: Any) -> tuple[Backbone, Rows]:
        """Go on from the network as it was tuned."""
        begun, wanted = self._begun_from, self._backbone_for(self.modality_)
        if self.head is not self._begun_head and (not isinstance(self.head, str) or self.head != self._begun_head):
            raise ValueError(
                f"warm_start=True goes on with the head of the last fit, but head is {self.head!r} now. Set warm_start=False."
            )
        if pooling_modes(self.pooling) != self._begun_pooling:
            raise ValueError(
                f"warm_start=True goes on with the embedding of the last fit, but pooling is {self.pooling!r} now. Set "
                "warm_start=False."
            )
        if architectures.kind_of(wanted) is None:
            wanted = self._resolve(X)[0].fingerprint
        if wanted != begun:
            raise ValueError(
                f"warm_start=True goes on from {self.backbone_.name!r}, but backbone now names another network. Set "
                "warm_start=False for a fit from there, or the former backbone again."
            )
        backbone = self._tuned_backbone()
        rows = read_rows(X, backbone.kind)
        self._refuse_texts_in_tables(backbone, rows)
        self._check_columns(X, rows, reset=False)
        return backbone, rows

    def _plan(
        self, start: Start, device: torch.device, random: np.random.RandomState, *, n_rows: int, validates: bool
    ) -> Plan:
        """Return what is trained, and how."""
        own = plain_parameters(self)
        own.head, own.augment = self.head, self.augment
        seed = int(random.randint(2**31 - 1))
        settings = configuration.training_settings(own, start, device, seed, n_rows=n_rows, validates=validates)
        source = None
        if self.source_probe is not None:
            X_source, y_source = self.source_probe
            with about("source_probe"):
                rows = read_rows(X_source, start.backbone.kind)
                source = start.preparation.read(rows.values), column_or_1d(y_source)
        return configuration.make_plan(own, start, settings, self._frozen_run(start.preparation), source)

    def _fitted_attributes(self, start: Start, targets: Targets, network: TunableNetwork) -> dict[str, Any]:
        """Return what predictions need."""
        return {
            "backbone_": start.backbone,
            "modality_": start.backbone.kind,
            "_preparation": start.preparation,
            "_targets": targets,
            "_network": network,
            "_tuned": _Once(),
            "_n_features_out": len(network.center),
            **start.columns,
        }

    def _lineage(
        self, start: Start, targets: Targets, n_samples: int, n_epochs: int, factory: ObjectiveFactory | None
    ) -> tuple[dict[str, Any], ...]:
        """Return where the network comes from, this fit last."""
        backbone = start.backbone
        first = "untrained" if start.from_random else "pretrained"
        before = backbone.lineage or ({"step": first, "backbone": backbone.name, "fingerprint": backbone.fingerprint},)
        step = {
            "step": "fine-tuned",
            "estimator": type(self).__name__,
            "freeze_depth": start.depth,
            "source_shift": start.source_shift,
            "n_epochs": n_epochs,
            "n_samples": n_samples,
            "targets": targets.kind,
        }
        return (*before, step | ({} if factory is None else dict(factory.lineage)))

    # What a fitted estimator gives

    def transform(self, X):
        """Embed rows with the tuned network: what its head sees, before it is centered and scaled.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Or a frame, see `set_output`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If `X` holds another kind of row than in `fit`, a row can't be read, or the network gives NaN for it.
        """
        return self._through(X, "embed").astype(np.float32, copy=False)

    @known_settings()
    def _through(self, X: Any, part: str = "scores") -> np.ndarray:
        """Run rows through the tuned network; with the cache, what is frozen runs once for each row."""
        check_is_fitted(self)
        self._validate_params()
        X = as_container(X)
        rows = read_rows(X, self.modality_)
        self._check_columns(X, rows, reset=False)
        values = self._preparation.read(rows.values)
        network = self._network
        run = self._frozen_run(self._preparation)
        ready = NetworkRows(network.cut, self._preparation, values, run, keep=False)
        outputs = run_network(network, ready, run.device, part)
        bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
        if len(bad):
            raise ValueError(
                f"The tuned network gave NaN or infinity for {len(bad)} row(s) of X, the first is row {bad[0]}. Check that "
                "row; if all are bad, fit again with a smaller learning_rate."
            )
        return outputs

    @known_settings()
    def _tuned_backbone(self) -> Backbone:
        """Return the tuned network as a handle of its own."""

        def make() -> Backbone:
            network, readout = self._network.tuned_copy()
            return self.backbone_.trained(network, readout, self._preparation, self.lineage_)

        return self._tuned.get(make)

    def __sktransfer_backbone__(self) -> Backbone:
        """Hand the tuned network to another estimator, as its `backbone`."""
        check_is_fitted(self)
        return self._tuned_backbone()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def _html_repr(self) -> str:
        shown = stages_html(self.stages_, self.source_shift_) if hasattr(self, "stages_") else ""
        return estimator_html_repr(self) + shown

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        if self.modality == "auto" and self._is_auto:
            # Anything will do, and tables are what scikit-learn's own checks bring.
            tags.input_tags.one_d_array = tags.input_tags.three_d_array = False
            tags.input_tags.two_d_array = tags.input_tags.string = tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self):
        state = dict(super().__getstate__())
        state.pop("_tuned", None)
        if "_network" in state:
            network = state.pop("_network")
            # The frozen part comes back with the backbone.
            state["_tuned_state"] = (network.cut.depth, network.cut.pooling, network.head, network.tuned_state())
        return state

    @known_settings()
    def __setstate__(self, state):
        state = dict(state)
        tuned = state.pop("_tuned_state", None)
        super().__setstate__(state)
        if tuned is not None:
            depth, pooling, head, values = tuned
            # Where they were unpickled in inference mode.
            head = without_inference_tensors(head)
            values = {name: value.clone() if value.is_inference() else value for name, value in values.items()}
            cut = cut_at(self.backbone_, self._preparation, depth, pooling=pooling)
            self._network = TunableNetwork(cut, self._preparation, head, len(values["center"]))
            self._network.take_state(values)
            self._network.eval()
            self._tuned = _Once()


class _Once:
    """A value that is made when it is first asked for, by one thread."""

    def __init__(self) -> None:
        self._lock = ProcessLock("a tuned network's handle")
        self._made: Any = None

    def get(self, make: Callable[[], Any]) -> Any:
        """Return the value, made now or before."""
        with self._lock:
            if self._made is None:
                self._made = make()
            return self._made


def _check_source(source_probe: Any) -> None:
    if len(source_probe) != 2:
        raise ValueError(f"source_probe must be a tuple (X, y). Got one of {len(source_probe)} parts.")
    X, y = source_probe
    with about("source_probe"):
        X = as_container(X)
        check_targets(y)
        y = column_or_1d(y)
        check_consistent_length(X, y)
        if type_of_target(y) not in ("binary", "multiclass"):
            raise ValueError(
                "its labels are no classes. Forgetting is measured as lost accuracy: give classes, or cut numbers into "
                "some, as numpy.digitize does."
            )
    if any(len(np.unique(part)) < 2 for part in (y[::2], y[1::2])):
        raise ValueError(
            "source_probe needs rows of at least two classes, both among the rows at even places, which teach, and at odd "
            f"places, which judge. Got {len(y)} rows of {len(np.unique(y))} class(es); shuffle them, or give more."
        )


def _check_same_columns(X: Any, X_val: Any) -> None:
    """Refuse validation rows whose columns have other names, or the same in another order."""
    frames = [nw.from_native(one, eager_only=True, pass_through=True) for one in (X, X_val)]
    if not all(isinstance(frame, nw.DataFrame) for frame in frames):
        return
    own, other = ([str(name) for name in frame.columns] for frame in frames)
    if own != other:
        raise ValueError(
            f"The columns are {', '.join(other[:10])}, those of X {', '.join(own[:10])}; they have to be the same, in the "
            "same order."
        )
