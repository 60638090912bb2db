"""What the estimators that train a network share: from parameters and rows to a call of `tune`, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import column_or_1d, estimator_html_repr
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import nn

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
from sktransfer.inputs.augmentation import check_augment, resolve_augment
from sktransfer.inputs.image_rows import refuse_one_image
from sktransfer.inputs.rows import KINDS, Rows, about, read_rows
from sktransfer.runtime.device import PRECISIONS, resolve_device, resolve_precision, warn_of_shared_gpu
from sktransfer.runtime.global_settings import known_settings, without_inference_tensors
from sktransfer.runtime.seeding import one_fit_at_a_time, own_random_state
from sktransfer.training.cut import cut_at
from sktransfer.training.inference import run_network
from sktransfer.training.network import StageRates, TunableNetwork
from sktransfer.training.objective import ObjectiveFactory, Samples, Supervised
from sktransfer.training.observers import EpochTasks, ProgressBar
from sktransfer.training.plan import Plan
from sktransfer.training.rows import NetworkRows
from sktransfer.training.settings import LR_SCHEDULERS, OPTIMIZERS, Settings
from sktransfer.training.source_shift import ALL_STAGES, LEARNED_NORMS, source_shift
from sktransfer.training.stage_table import stages_html
from sktransfer.training.targets import Targets
from sktransfer.training.tuning import tune

# Trained from scratch, where no network is there that fits all rows of a kind.
_UNTRAINED = {"table": "table-mlp", "series": "series-cnn"}
_MANY_ROWS = 1000
_EPOCHS, _FEW_EPOCHS = 20, 6
# Of the top stage of a pretrained network, by what it reads; and of all stages of an untrained one.
_LEARNING_RATES = {"text": 1e-4, "image": 3e-4, "table": 3e-4, "series": 3e-4}
_UNTRAINED_RATE = 1e-3
_HALF = 0.5
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
        told = {"estimator": self, "X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        earlier = self._network if self.warm_start and hasattr(self, "_network") else None
        X = self._rows_in(X, earlier)
        if X_val is not None:
            with about("X_val"):
                X_val = self._rows_in(X_val, earlier)
        random = own_random_state(self.random_state)
        request = (X, y, sample_weight), (X_val, y_val, sample_weight_val)
        training, held_out, targets, split_seed = self._divided(*request, earlier, random, factory)
        n_rows = len(training.y) + (0 if held_out is None or X_val is not None else len(held_out.y))
        X = training.X
        objective = (
            Supervised(targets, training, held_out)
            if factory is None
            else factory.objective(targets, training, held_out)
        )

        backbone, rows = self._resolve(X, training.weights) if earlier is None else self._resume(X)
        untrained = self._is_untrained(backbone)
        begun = self._backbone_for(backbone.kind) if untrained else backbone.fingerprint
        preparation = backbone.preparation.with_options(max_length=plain(self.max_length), prompt=plain(self.prompt))
        values = preparation.read(rows.values)
        columns = self._columns_of(X, Rows(rows.kind, values))
        self._warn_of_columns(backbone, rows)
        preparation = preparation.fitted_to(values)
        shift = None
        if not self._is_random(untrained):
            shift = source_shift(backbone, preparation, values, keep=resolve_cache(self.cache) is not None)
        # There is nothing in an untrained network worth keeping.
        depth = 0 if untrained else resolve_depth(self._depth_for(shift), backbone.find_stages(preparation))
        values_val = None
        if held_out is not None:
            with about("X_val"):
                _check_same_columns(X, held_out.X)
                rows_val = read_rows(held_out.X, backbone.kind)
                self._refuse_texts_in_tables(backbone, rows_val)
                values_val = preparation.read(rows_val.values)
        validates = held_out is not None
        plan = self._plan(
            backbone, preparation, depth, untrained, shift, device, random, n_rows=n_rows, validates=validates
        )

        root = self._init_callback_context(max_subtasks=plan.settings.max_epochs)
        root.call_on_fit_task_begin(**told)

        def watch(network: TunableNetwork) -> list[Any]:
            fitted = {**self._fitted_attributes(backbone, preparation, targets, network), **columns}
            observers: list[Any] = [EpochTasks(root, told, lambda: fitted)] if hasattr(self, "_skl_callbacks") else []
            return [*observers, ProgressBar(type(self).__name__)] if self.verbose else observers

        made = tune(backbone, preparation, values, values_val, objective, plan, earlier=earlier, watch=watch)
        # Nothing is set before all has gone well: a failed fit leaves the estimator as it was.
        fitted = {**self._fitted_attributes(backbone, preparation, targets, made.network), **columns}
        if earlier is None:
            fitted |= {"_begun_from": begun, "_begun_head": self.head, "_begun_pooling": plan.pooling}
        from_random = self._is_random(untrained)
        fitted |= {
            "_split_seed": split_seed,
            "history_": made.history,
            "n_epochs_": made.n_epochs,
            "stability_": made.stability,
            "source_shift_": shift,
            "stages_": made.network.stage_table(made.rates or plan.rates),
            "lineage_": (
                *_lineage_of(backbone, from_random),
                self._step(len(training.y), depth, made.n_epochs, targets, shift)
                | ({} if factory is None else dict(factory.lineage)),
            ),
        }
        self._replace_fitted(fitted, gone=OF_COLUMNS)
        root.call_on_fit_task_end(**told)
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
        all_rows = _weighted(X, y, times(weights, _each(class_weights, y)))
        targets = factory.targets(all_rows) if factory is not None else self._targets_of(all_rows, earlier)
        split_seed: int | None = None if earlier is None else self._split_seed
        X_val, y_val, sample_weight_val = given_val
        if X_val is not None:
            with about("X_val, y_val or sample_weight_val"):
                y_val, weights_val = self._checked(X_val, y_val, sample_weight_val)
                held_out = _weighted(X_val, y_val, times(weights_val, _each(class_weights, y_val)))
            self._check_known(held_out.y, targets, "y_val")
            return all_rows, held_out, targets, split_seed
        solved = earlier is None and factory is None and self._is_solved(all_rows.X)
        if not self._validates(all_rows.y) or self.max_epochs == 0 or solved:
            return all_rows, None, targets, split_seed
        drawn = int(random.randint(2**31 - 1))
        split_seed = drawn if split_seed is None else split_seed  # validation samples are never trained on
        training, held_out = self._split(all_rows, split_seed)
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
        return len(y) >= _MANY_ROWS and self._enough_to_split(y)

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

    def _split(self, samples: Samples, seed: int) -> tuple[Samples, Samples]:
        y = samples.y
        if len(y) < 2:
            raise ValueError(
                "Of a single row none can be held back for validation. Set early_stopping=False, or give X_val."
            )
        n_held_out = self._n_held_out(y)
        if n_held_out >= len(y):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {len(y)} rows holds back {n_held_out} of them, so that "
                "none is left to learn from. Make it smaller, or set early_stopping=False."
            )
        training, held_out = train_test_split(
            np.arange(len(y)), test_size=plain(self.validation_fraction), random_state=seed, stratify=self._strata(y)
        )
        return samples.at(np.sort(training)), samples.at(np.sort(held_out))

    def _n_held_out(self, y: np.ndarray) -> int:
        held_out = plain(self.validation_fraction)
        return int(np.ceil(held_out * len(y))) if held_out < 1 else int(held_out)

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        return None

    def _backbone_for(self, kind: str | None) -> Any:
        return _UNTRAINED[kind] if self._is_auto and kind in _UNTRAINED else self.backbone

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

    def _is_untrained(self, backbone: Backbone) -> bool:
        return architectures.kind_of(self._backbone_for(backbone.kind)) is not None

    def _is_random(self, untrained: bool) -> bool:
        """Whether the network starts from random weights, those of a pretrained one's architecture included."""
        return untrained or (isinstance(self.weights, str) and self.weights == "random")

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
        self,
        backbone: Backbone,
        preparation: Any,
        depth: int,
        untrained: bool,
        shift: float | None,
        device: torch.device,
        random: np.random.RandomState,
        *,
        n_rows: int,
        validates: bool,
    ) -> Plan:
        own, from_random = plain_parameters(self), self._is_random(untrained)
        run = self._frozen_run(preparation)
        autocast = None
        if device.type == "cuda" and self.precision != "float32":
            dtype = resolve_precision(self.precision, device, backbone.kind)
            autocast = None if dtype == torch.float32 else dtype
        max_epochs = own.max_epochs
        if max_epochs == "auto":
            max_epochs = _FEW_EPOCHS if n_rows >= _MANY_ROWS and not from_random else _EPOCHS
        settings = Settings(
            max_epochs=max_epochs,
            batch_size=own.batch_size,
            optimizer=own.optimizer,
            lr_scheduler=own.lr_scheduler,
            warmup_ratio=own.warmup_ratio,
            max_grad_norm=own.max_grad_norm,
            n_iter_no_change=own.n_iter_no_change if validates else None,
            seed=int(random.randint(2**31 - 1)),
            device=device,
            dtype=torch.float64 if preparation.exact and device.type != "mps" else torch.float32,
            autocast=autocast,
        )
        head_init = "random" if untrained else own.head_init
        fixed_norms = own.freeze_batch_norm
        if isinstance(fixed_norms, str):
            fixed_norms = head_init == "probe" and (shift is None or shift <= LEARNED_NORMS)
        all_frozen = depth == len(backbone.find_stages(preparation))
        rates, new_head_rate = self._rates(backbone.kind, head_init, untrained, all_frozen=all_frozen)
        source = None
        if self.source_probe is not None:
            X_source, y_source = self.source_probe
            with about("source_probe"):
                source = preparation.read(read_rows(X_source, backbone.kind).values), column_or_1d(y_source)
        fresh = None
        if untrained:
            name = self._backbone_for(backbone.kind)
            fresh = partial(architectures.untrained, name, backbone.preparation)
        return Plan(
            depth=depth,
            rates=rates,
            new_head_rate=new_head_rate,
            settings=settings,
            run=run,
            weight_decay=own.weight_decay,
            l2_sp=own.l2_sp,
            head=self.head,
            head_init=head_init,
            pooling=pooling_modes(own.pooling),
            unfreeze_every=None if untrained else own.unfreeze_every,
            augment=resolve_augment(self.augment, backbone.kind),
            stability_every=own.stability_every,
            source=source,
            untrained=fresh,
            fixed_norms=bool(fixed_norms),
            interpolation=1.0 if from_random else float(own.weight_interpolation),
        )

    def _rates(self, kind: str, head_init: str, untrained: bool, *, all_frozen: bool) -> tuple[StageRates, float]:
        """Return the rates of stages and head, and the one of a head that starts at random."""
        own = plain_parameters(self)
        rate = own.learning_rate
        if isinstance(rate, str):
            rate = _UNTRAINED_RATE if self._is_random(untrained) else _LEARNING_RATES[kind]
        of_new_head = rate if untrained else rate * own.head_lr_ratio
        # Where all is frozen there is nothing under the head that its steps could distort.
        of_head = rate if head_init == "probe" and not all_frozen else of_new_head
        return StageRates(of_head, rate, 1.0 if untrained else own.layer_decay), of_new_head

    def _fitted_attributes(
        self, backbone: Backbone, preparation: Any, targets: Targets, network: TunableNetwork
    ) -> dict[str, Any]:
        """Return what predictions need."""
        return {
            "backbone_": backbone,
            "modality_": backbone.kind,
            "_preparation": preparation,
            "_targets": targets,
            "_network": network,
            "_tuned": _Once(),
            "_n_features_out": len(network.center),
        }

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

    def _depth_for(self, shift: float | None) -> Any:
        """Return the depth to freeze to; all stages are trained where the rows are far from the source's."""
        if self.freeze_depth != "auto":
            return self.freeze_depth
        return 0 if shift is not None and shift > ALL_STAGES else _HALF

    def _step(self, n_samples: int, depth: int, n_epochs: int, targets: Targets, shift: float | None) -> dict[str, Any]:
        """Describe this fit for the lineage."""
        return {
            "step": "fine-tuned",
            "estimator": type(self).__name__,
            "freeze_depth": depth,
            "source_shift": shift,
            "n_epochs": n_epochs,
            "n_samples": n_samples,
            "targets": targets.kind,
        }

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


def _each(class_weights: dict[Any, float], y: np.ndarray) -> np.ndarray:
    """Return the class weight of each row."""
    return np.array([class_weights.get(label, 1.0) for label in y.tolist()]) if class_weights else np.ones(len(y))


def _weighted(X: Any, y: np.ndarray, weights: np.ndarray) -> Samples:
    """Leave out rows that have no weight, which is the same as no row, and bring the others' mean to 1."""
    kept = np.flatnonzero(weights)
    if not len(kept):
        raise ValueError("All sample weights are zero, so there is nothing to learn from.")
    samples = Samples(X, y, weights, np.arange(len(y)))
    samples = samples if len(kept) == len(weights) else samples.at(kept)
    return replace(samples, weights=of_mean_one(samples.weights))


def _lineage_of(backbone: Backbone, untrained: bool) -> tuple[dict[str, Any], ...]:
    if backbone.lineage:
        return backbone.lineage
    step = "untrained" if untrained else "pretrained"
    return ({"step": step, "backbone": backbone.name, "fingerprint": backbone.fingerprint},)
