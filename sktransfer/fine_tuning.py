"""FineTunedClassifier and FineTunedRegressor: a pretrained network, tuned to labelled rows."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, assert_all_finite, column_or_1d, compute_class_weight, estimator_html_repr
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_array,
    check_consistent_length,
    check_is_fitted,
)
from torch import nn

from sktransfer.backbone_estimator import BackboneEstimator
from sktransfer.backbones.architectures import kind_of
from sktransfer.backbones.augmentation import resolve_augment
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.pooling import POOLINGS
from sktransfer.backbones.readout import pooling_modes
from sktransfer.backbones.rows import KINDS, Rows, read_rows
from sktransfer.backbones.stages import resolve_depth
from sktransfer.caching import resolve_cache
from sktransfer.runtime.device import PRECISIONS, resolve_device, resolve_precision, warn_of_shared_gpu
from sktransfer.runtime.seeding import own_random_state
from sktransfer.training.cut import cut_at
from sktransfer.training.observers import EpochTasks, ProgressBar
from sktransfer.training.rows import NetworkRows
from sktransfer.training.settings import LR_SCHEDULERS, OPTIMIZERS, Settings
from sktransfer.training.stage_table import stages_html
from sktransfer.training.targets import Classes, Labels, Numbers, Targets
from sktransfer.training.tunable import StageRates, TunableNetwork
from sktransfer.training.tuning import Examples, Plan, run_network, tune

# Trained from scratch, where no network is there that fits all rows of a kind.
_UNTRAINED = {"table": "table-mlp", "series": "series-cnn"}
_ROWS_TO_VALIDATE = 1000


class _FineTuned(CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BackboneEstimator):
    """What classifier and regressor share."""

    _parameter_constraints: dict = {
        "backbone": "no_validation",
        "freeze_depth": "no_validation",
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "backbone_lr_ratio": [Interval(Real, 0, None, closed="left")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "unfreeze_every": [Interval(Integral, 1, None, closed="left"), None],
        "l2_sp": [Interval(Real, 0, None, closed="left")],
        "head": [StrOptions({"linear", "mlp"}), nn.Module, callable],
        "head_init": [StrOptions({"probe", "random"})],
        "augment": [StrOptions({"auto"}), callable, None],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_ratio": [Interval(Real, 0, 1, closed="left")],
        "lr_scheduler": [StrOptions(set(LR_SCHEDULERS))],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [
            Interval(RealNotInt, 0, 1, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
        "stability_every": [Interval(Integral, 1, None, closed="left"), None],
        "source_probe": [tuple, None],
        "pooling": [StrOptions({"auto", *POOLINGS}), list, tuple],
        "modality": [StrOptions({"auto", *KINDS})],
        "weights": "no_validation",
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "prompt": [str, None],
        "device": [str, torch.device],
        "precision": [StrOptions(set(PRECISIONS))],
        "cache": "no_validation",
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Fit

    # Weights that are copied in a caller's inference mode could not be trained.
    @torch.inference_mode(False)
    def _fit(self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any, sample_weight_val: Any) -> Any:
        self._validate_params()
        device = resolve_device(self.device)
        warn_of_shared_gpu(device)
        resolve_cache(self.cache)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both or neither.")
        if sample_weight_val is not None and X_val is None:
            raise ValueError("sample_weight_val was given without X_val and y_val.")
        if self.source_probe is not None and len(self.source_probe) != 2:
            raise ValueError(f"source_probe must be a tuple (X, y). Got one of {len(self.source_probe)} parts.")
        if X_val is not None and not self.early_stopping:
            raise ValueError("X_val serves to choose the best epoch, but early_stopping=False. Leave one of them out.")
        earlier = self._network if self.warm_start and hasattr(self, "_network") else None
        y, weights = self._checked(X, y, sample_weight)
        class_weights = self._class_weights(y, weights)
        X, y, weights = _weighted(X, y, weights * _each(class_weights, y))
        targets = self._targets_of(y, weights, earlier)
        random = own_random_state(self.random_state)
        if X_val is not None:
            y_val, weights_val = self._checked(X_val, y_val, sample_weight_val)
            self._check_known(y_val, targets, "y_val")
            X_val, y_val, weights_val = _weighted(X_val, y_val, weights_val * _each(class_weights, y_val))
        elif self._validates(y):
            X, X_val, y, y_val, weights, weights_val = self._split(X, y, weights, int(random.randint(2**31 - 1)))

        backbone, rows = self._resolve(X, weights) if earlier is None else self._resume(X)
        untrained = self._is_untrained(backbone)
        preparation = backbone.preparation.with_options(max_length=self.max_length, prompt=self.prompt)
        values = preparation.read(rows.values)
        preparation = preparation.fitted_to(values)
        depth = resolve_depth(self.freeze_depth, backbone.find_stages(preparation))
        depth = 0 if untrained else depth  # there is nothing in it worth keeping
        training = Examples(values, targets.encode(y), weights)
        validation = None
        if X_val is not None:
            rows_val = read_rows(X_val, backbone.kind)
            validation = Examples(preparation.read(rows_val.values), targets.encode(y_val), weights_val)
        plan = self._plan(backbone, preparation, depth, untrained, device, random, validates=validation is not None)

        root = self._init_callback_context(max_subtasks=plan.settings.max_epochs)
        told = {"estimator": self, "X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        root.call_on_fit_task_begin(**told)

        def watch(network: TunableNetwork) -> list[Any]:
            fitted = self._fitted_attributes(backbone, preparation, targets, network)
            observers: list[Any] = [EpochTasks(root, told, lambda: fitted)] if hasattr(self, "_skl_callbacks") else []
            return [*observers, ProgressBar(type(self).__name__)] if self.verbose else observers

        made = tune(backbone, preparation, training, validation, targets, plan, earlier=earlier, watch=watch)
        # Nothing is set before all has gone well: a failed fit leaves the estimator as it was.
        self._check_columns(X, Rows(rows.kind, values), reset=True)
        for name, value in self._fitted_attributes(backbone, preparation, targets, made.network).items():
            setattr(self, name, value)
        self.history_ = made.history
        self.n_epochs_ = made.n_epochs
        self.stability_ = made.stability
        self.stages_ = made.network.stage_table(plan.rates)
        self.lineage_ = (*_lineage_of(backbone, untrained), self._step(y, depth, made.n_epochs, targets))
        self.__dict__.pop("_tuned", None)
        root.call_on_fit_task_end(**told)
        return self

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
        """Check targets and weights."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")
        y = self._checked_y(y)
        check_consistent_length(X, y)
        if not len(y):
            raise ValueError("Found 0 samples in X, while there must be rows to learn from.")
        return y, _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)

    def _class_weights(self, y: np.ndarray, weights: np.ndarray) -> dict[Any, float]:
        """Return the weight of each class; one that is not there weighs 1."""
        return {}

    def _validates(self, y: np.ndarray) -> bool:
        """Whether to hold rows back to choose the best epoch."""
        if self.early_stopping != "auto":
            return bool(self.early_stopping)
        return len(y) >= _ROWS_TO_VALIDATE and self._enough_to_split(y)

    def _enough_to_split(self, y: np.ndarray) -> bool:
        return True

    def _split(self, X: Any, y: np.ndarray, weights: np.ndarray, seed: int) -> tuple[Any, ...]:
        places = np.arange(len(y))
        training, held_out = train_test_split(
            places, test_size=self.validation_fraction, random_state=seed, stratify=self._strata(y)
        )
        training, held_out = np.sort(training), np.sort(held_out)
        parts = [_safe_indexing(X, training), _safe_indexing(X, held_out)]
        return *parts, y[training], y[held_out], weights[training], weights[held_out]

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
        return kind_of(self._backbone_for(backbone.kind)) is not None

    def _resume(self, X: Any) -> tuple[Backbone, Rows]:
        """Go on from the network as it was tuned."""
        backbone = self._tuned_backbone()
        rows = read_rows(X, backbone.kind)
        self._check_columns(X, rows, reset=False)
        return backbone, rows

    def _plan(
        self,
        backbone: Backbone,
        preparation: Any,
        depth: int,
        untrained: bool,
        device: torch.device,
        random: np.random.RandomState,
        *,
        validates: bool,
    ) -> Plan:
        run = self._frozen_run(preparation)
        autocast = None
        if device.type == "cuda" and self.precision != "float32":
            dtype = resolve_precision(self.precision, device, backbone.kind)
            autocast = None if dtype == torch.float32 else dtype
        settings = Settings(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
            warmup_ratio=self.warmup_ratio,
            max_grad_norm=self.max_grad_norm,
            n_iter_no_change=self.n_iter_no_change if validates else None,
            seed=int(random.randint(2**31 - 1)),
            device=device,
            dtype=torch.float64 if preparation.exact and device.type != "mps" else torch.float32,
            autocast=autocast,
        )
        ratio, decay = (1.0, 1.0) if untrained else (self.backbone_lr_ratio, self.layer_decay)
        source = None
        if self.source_probe is not None:
            X_source, y_source = self.source_probe
            source = preparation.read(read_rows(X_source, backbone.kind).values), column_or_1d(y_source)
            check_consistent_length(X_source, y_source)
        return Plan(
            depth=depth,
            rates=StageRates(self.learning_rate, ratio, decay),
            settings=settings,
            run=run,
            weight_decay=self.weight_decay,
            l2_sp=self.l2_sp,
            head=self.head,
            head_init="random" if untrained else self.head_init,
            pooling=pooling_modes(self.pooling),
            unfreeze_every=self.unfreeze_every,
            augment=resolve_augment(self.augment, backbone.kind),
            stability_every=self.stability_every,
            source=source,
        )

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
            "_n_features_out": len(network.center),
        }

    # What a fitted estimator gives

    def transform(self, X):
        """Embed rows with the tuned network: what its head sees, before it is standardised.

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

    def _through(self, X: Any, part: str = "forward") -> np.ndarray:
        """Run rows through the tuned network; with the cache, what is frozen runs once for each row."""
        check_is_fitted(self)
        self._validate_params()
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

    def _tuned_backbone(self) -> Backbone:
        """Return the tuned network as a handle of its own."""
        if not hasattr(self, "_tuned"):
            network, readout = self._network.tuned_copy()
            self._tuned = self.backbone_.trained(network, readout, self._preparation, self.lineage_)
        return self._tuned

    def __sktransfer_backbone__(self) -> Backbone:
        """Hand the tuned network to another estimator, as its `backbone`."""
        check_is_fitted(self)
        return self._tuned_backbone()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def _html_repr(self) -> str:
        return estimator_html_repr(self) + (stages_html(self.stages_) if hasattr(self, "stages_") else "")

    def _step(self, y: np.ndarray, depth: int, n_epochs: int, targets: Targets) -> dict[str, Any]:
        """Describe this fit for the lineage."""
        return {
            "step": "fine-tuned",
            "estimator": type(self).__name__,
            "freeze_depth": depth,
            "n_epochs": n_epochs,
            "n_samples": len(y),
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

    def __setstate__(self, state):
        state = dict(state)
        tuned = state.pop("_tuned_state", None)
        super().__setstate__(state)
        if tuned is not None:
            depth, pooling, head, values = tuned
            cut = cut_at(self.backbone_, self._preparation, depth, pooling=pooling)
            self._network = TunableNetwork(cut, self._preparation, head, len(values["center"]))
            self._network.take_state(values)
            self._network.eval()


def _each(class_weights: dict[Any, float], y: np.ndarray) -> np.ndarray | float:
    """Return the class weight of each row."""
    return np.array([class_weights[label] for label in y.tolist()]) if class_weights else 1.0


def _weighted(X: Any, y: np.ndarray, weights: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Leave out rows that have no weight: that is the same as no row."""
    kept = np.flatnonzero(weights)
    if not len(kept):
        raise ValueError("All sample weights are zero, so there is nothing to learn from.")
    if len(kept) == len(weights):
        return X, y, weights
    return _safe_indexing(X, kept), y[kept], weights[kept]


def _lineage_of(backbone: Backbone, untrained: bool) -> tuple[dict[str, Any], ...]:
    if backbone.lineage:
        return backbone.lineage
    step = "untrained" if untrained else "pretrained"
    return ({"step": step, "backbone": backbone.name, "fingerprint": backbone.fingerprint},)


class FineTunedClassifier(ClassifierMixin, _FineTuned):
    """Classify texts, images, table rows or series with a pretrained network that is tuned to them.

    The stages of the network before `freeze_depth` stay as they are, and what they give is computed once for each row, whatever
    the number of epochs, folds and candidates of a search. A copy of the others is trained together with a head. Defaults are
    careful: the head starts from a probe, the network moves slowly and its lower stages more slowly, and where there are
    validation rows the start competes with every epoch.

    Parameters
    ----------
    backbone : str, path, nn.Module, ModuleBackbone or fitted estimator, default="auto"
        The pretrained network, as in :class:`PretrainedFeatureExtractor`; a fitted scikit-learn model has no network to
        tune. With ``"auto"``, texts and images get the small network shipped with the package. For tables and series there is
        none that fits all: an untrained one (``"table-mlp"``, ``"series-cnn"``) is made for the rows and trained
        from scratch, all its stages at `learning_rate`, which is how a source is made; `lineage_` says so.
    freeze_depth : int, float or "all", default=0.5
        The stages before it are frozen: no gradient, no dropout, statistics of batch norm fixed. An int is a place in the list
        of stages, from the end if negative: 0 trains all, -1 the last stage only. A float in [0, 1] is a share of
        the stages. ``"all"`` freezes everything and trains the head alone; a linear head that starts as a probe is then done.
    learning_rate : float, default=1e-3
        Rate of the head at the height of the schedule.
    backbone_lr_ratio : float, default=0.1
        Rate of the top stage, as a share of the head's.
    layer_decay : float, default=0.9
        Rate of each stage, as a share of that of the stage above it, in (0, 1].
    unfreeze_every : int or None, default=None
        Gradual unfreezing: training begins with the head and the top stage, and one more stage opens after every so many
        epochs, down to `freeze_depth`. None opens all of them at once.
    l2_sp : float, default=0
        Strength of a pull of the network's weights towards their start (L2-SP): half the squared distance times this is added
        to the loss.
    head : {"linear", "mlp"}, nn.Module or callable, default="linear"
        What is put on the embedding. A module is copied; a callable gets the length of the embedding and the number of outputs,
        and returns a module. There is one output for two classes, otherwise one for each class, label or target.
    head_init : {"probe", "random"}, default="probe"
        Where the head starts. ``"probe"`` fits it to the frozen embeddings of the training rows, so that a random head does not
        distort the network before it has learned something itself.
    augment : "auto", callable or None, default=None
        Images only: a random change of each training image in each epoch, from a tensor (channels, height, width) to one of the
        same shape, such as a transform of ``torchvision.transforms.v2``. ``"auto"`` crops up to 30 percent away and mirrors
        half of the images, which is wrong for digits and letters. The frozen stages then run in every epoch.
    class_weight : dict, "balanced" or None, default=None
        Weights of classes, by label; ``"balanced"`` makes all classes count the same.
    max_epochs : int, default=20
        Passes over the training rows.
    batch_size : int, default=32
        Rows of one step. Where they don't fit into memory, the step is computed in parts, with the same result but for
        the statistics of batch norm.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        ``"sgd"`` has a momentum of 0.9.
    weight_decay : float, default=0.01
        Of the optimizer; biases and the weights of normalisation layers have none.
    warmup_ratio : float, default=0.1
        Share of all steps in which rates rise.
    lr_scheduler : {"cosine", "linear", "constant"}, default="cosine"
        How rates fall after that.
    max_grad_norm : float or None, default=1.0
        Norm to which the gradient of a step is cut.
    early_stopping : "auto" or bool, default="auto"
        Whether validation rows choose the epoch that is kept, the start among them. ``"auto"`` does so with `X_val`, or with
        1,000 rows or more and enough of each class; otherwise the whole schedule is trained on all rows.
    validation_fraction : float or int, default=0.1
        Share or number of the rows that are held back for that where there is no `X_val`, in the same mix of classes.
    n_iter_no_change : int or None, default=5
        Epochs without a better validation loss after which training ends.
    stability_every : int or None, default=None
        Epochs between entries of `stability_`; None keeps no record.
    source_probe : tuple of (X, y) or None, default=None
        Rows and classes of the source, on which the record follows what is forgotten: half of them teach a linear model on the
        embedding as it was, the other half is what its accuracy is taken from.
    pooling : str or sequence of str, default="auto"
        How outputs become one vector a row, as in :class:`PretrainedFeatureExtractor`.
    modality : {"auto", "text", "image", "table", "series"}, default="auto"
        Kind of row.
    weights : str or path, default=None
        Name of a set of weights, a weights file, or "random"; None for the default ones.
    max_length : int or None, default=None
        Texts: tokens kept, special tokens included; None for the network's own setting.
    prompt : str or None, default=None
        Texts: put in front of each, or the name of one of the network's own prompts.
    device : str or torch.device, default="auto"
        Where to compute: a GPU if there is one, else the processor.
    precision : {"float32", "auto", "bfloat16", "float16"}, default="float32"
        Of the frozen stages; on a GPU also of products in training (mixed precision). Weights are trained in float32, those
        of the package's networks for tables in float64.
    cache : "memory", str, path or None, default="memory"
        Where outputs of frozen stages are kept, row by row, for later epochs, folds and candidates: in this process's
        memory, or in a directory that processes share. None computes them in every epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from the network and head of the last fit.
    random_state : int, RandomState or None, default=None
        Of the order of rows, dropout, augmentation, a random head and the split for validation. Global generators are
        left alone.
    verbose : int, default=0
        Whether to show a progress bar of epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or list of ndarray
        The labels, sorted; for several labels a row, 0 and 1 for each.
    backbone_ : Backbone
        The pretrained network, unchanged.
    modality_ : str
        Kind of row seen in `fit`.
    history_ : list of dict
        One entry for each epoch, 0 for the start: ``epoch``, ``train_loss`` and ``valid_loss`` (None where there is none),
        ``learning_rate`` (of the head, at the end of the epoch), ``seconds``, ``best`` (whether its weights are the ones kept).
    n_epochs_ : int
        Epochs that ran.
    stages_ : tuple of StageInfo
        Name, number of weights, frozen or not, and learning rate of each stage.
    stability_ : StabilityRecord or None
        What training did to each stage, where `stability_every` asked for it.
    lineage_ : tuple of dict
        Where the network comes from, the pretrained one first and this fit last.
    n_features_in_ : int
        Number of columns of `X`, where it has columns.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where they are all strings.

    See Also
    --------
    PretrainedFeatureExtractor : Embeddings of the network as it is.
    FineTunedRegressor : The same for numbers.

    Notes
    -----
    The head starting from a probe: Kumar et al. 2022, arXiv:2202.10054. Discriminative rates and gradual unfreezing: Howard and
    Ruder 2018, arXiv:1801.06146. L2-SP: Li et al. 2018, arXiv:1802.01483.

    Examples
    --------
    >>> from sktransfer import FineTunedClassifier
    >>> texts = ["the card was lost", "my card is gone", "what is the exchange rate", "which rate do I get"]
    >>> model = FineTunedClassifier(freeze_depth="all", random_state=0).fit(texts, ["card", "card", "rate", "rate"])
    >>> model.predict(["I lost my card"])
    array(['card'], dtype='<U4')
    """

    _parameter_constraints: dict = {
        **_FineTuned._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        backbone="auto",
        *,
        freeze_depth=0.5,
        learning_rate=1e-3,
        backbone_lr_ratio=0.1,
        layer_decay=0.9,
        unfreeze_every=None,
        l2_sp=0.0,
        head="linear",
        head_init="probe",
        augment=None,
        class_weight=None,
        max_epochs=20,
        batch_size=32,
        optimizer="adamw",
        weight_decay=0.01,
        warmup_ratio=0.1,
        lr_scheduler="cosine",
        max_grad_norm=1.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=5,
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
        self.backbone_lr_ratio = backbone_lr_ratio
        self.layer_decay = layer_decay
        self.unfreeze_every = unfreeze_every
        self.l2_sp = l2_sp
        self.head = head
        self.head_init = head_init
        self.augment = augment
        self.class_weight = class_weight
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

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Tune the network to labelled rows.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Texts, images, table rows or series, as :class:`PretrainedFeatureExtractor` reads them.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels, numbers or strings; or a column of 0 and 1 for each label, of which a row may have any number.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts in the loss; a row of weight 0 is left out.
        X_val, y_val : like `X` and `y`, default=None
            Rows that choose the epoch that is kept. A search cuts them to a fold's rows if they are as many as `X`: fit
            parameters of that length are taken for one entry a row.
        sample_weight_val : array-like of shape (n_val,), default=None
            What each of them counts.

        Returns
        -------
        self : FineTunedClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, targets are not what they should be, or a row can't be read.
        TypeError
            If a row is of a type that no network of this kind reads.
        OSError
            If the network is neither on disk nor can be downloaded.

        Warns
        -----
        UserWarning
            If the loss became NaN or infinite, training was interrupted, or the network can't be cut where it is frozen.
        """
        return self._fit(X, y, sample_weight, X_val, y_val, sample_weight_val)

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels.
        """
        outputs = self._through(X)
        return self._targets.predict(outputs)

    def predict_proba(self, X):
        """Predict probabilities.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            In the order of `classes_`; for several labels a row, the probability that each holds.
        """
        outputs = self._through(X)
        return self._targets.probabilities(outputs)

    def decision_function(self, X):
        """Return the scores of classes, before they become probabilities.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            For two classes the score of the second: above 0 it is predicted.
        """
        outputs = self._through(X)
        return self._targets.scores(outputs)

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of predictions.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            The true labels.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts.

        Returns
        -------
        float
            Share of rows that are predicted right; of several labels, all of them.
        """
        return super().score(X, y, sample_weight)

    def _checked_y(self, y: Any) -> np.ndarray:
        if getattr(getattr(y, "dtype", None), "kind", "") == "f":
            assert_all_finite(y, input_name="y")
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            labels = check_array(y, accept_sparse=True, input_name="y")
            return (labels.toarray() if issparse(labels) else labels).astype(np.int64)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns of classes. Give one column, a column of 0 and 1 for each label, or fit one classifier "
                "for each column, see sklearn.multioutput.MultiOutputClassifier."
            )
        check_classification_targets(y)
        return _check_y(y, estimator=self)

    def _targets_of(self, y: np.ndarray, weights: np.ndarray, earlier: TunableNetwork | None) -> Targets:
        if earlier is not None:
            self._check_known(y, self._targets, "y")
            return self._targets
        if y.ndim == 2:
            return Labels(y.shape[1])
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} can't tell classes apart where there is only one class, {classes.tolist()[0]!r}. Give "
                "rows of at least two classes, with weights above zero."
            )
        return Classes(classes)

    def _check_known(self, y: np.ndarray, targets: Targets, name: str) -> None:
        known_shape = targets.n_labels if isinstance(targets, Labels) else None
        if (y.shape[1] if y.ndim == 2 else None) != known_shape:
            raise ValueError(f"{name} has the shape {y.shape}, which does not fit y as it was in the fit.")
        if known_shape is None and len(unknown := np.setdiff1d(y, targets.classes)):
            raise ValueError(
                f"{name} holds classes that the fit has not seen: {', '.join(map(repr, unknown[:5].tolist()))}. The classes "
                f"are {', '.join(map(repr, targets.classes[:20].tolist()))}{', ...' if len(targets.classes) > 20 else ''}."
            )

    def _class_weights(self, y: np.ndarray, weights: np.ndarray) -> dict[Any, float]:
        if self.class_weight is None:
            return {}
        if y.ndim == 2:
            raise ValueError("class_weight is for one class a row, but y has several labels. Use sample_weight.")
        # Rows without weight are not there, and others count as often as they weigh.
        there = weights > 0
        classes = np.unique(y[there])
        found = compute_class_weight(self.class_weight, classes=classes, y=y[there], sample_weight=weights[there])
        made = dict(zip(classes.tolist(), found.tolist(), strict=True))
        return {label: made.get(label, 1.0) for label in np.unique(y).tolist()}

    def _enough_to_split(self, y: np.ndarray) -> bool:
        if y.ndim == 2:
            return True
        counts = np.unique(y, return_counts=True)[1]
        held_out = self.validation_fraction
        share = held_out if held_out < 1 else held_out / len(y)
        return counts.min() * share >= 1

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        if y.ndim == 2:
            return None
        labels, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"Class {labels.tolist()[counts.argmin()]!r} has a single row, so it can't be both trained on and held back "
                "for validation. Bring more rows of it, give X_val and y_val, or set early_stopping=False."
            )
        held_out = self.validation_fraction
        n_held_out = int(np.ceil(held_out * len(y))) if held_out < 1 else held_out
        if n_held_out < len(labels) or len(y) - n_held_out < len(labels):
            raise ValueError(
                f"validation_fraction={held_out} of {len(y)} rows holds back {n_held_out} of them; there are {len(labels)} "
                "classes, which must all be on both sides. Change validation_fraction, or set early_stopping=False."
            )
        return y

    def _fitted_attributes(self, backbone: Any, preparation: Any, targets: Any, network: Any) -> dict[str, Any]:
        classes = [np.array([0, 1])] * targets.n_labels if isinstance(targets, Labels) else targets.classes
        return {**super()._fitted_attributes(backbone, preparation, targets, network), "classes_": classes}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class FineTunedRegressor(RegressorMixin, _FineTuned):
    """Predict numbers for texts, images, table rows or series with a pretrained network that is tuned to them.

    As :class:`FineTunedClassifier`, with the squared error of standardised targets as the loss, and a ridge regression as the
    probe that the head starts from.

    Parameters
    ----------
    backbone : str, path, nn.Module, ModuleBackbone or fitted estimator, default="auto"
        The pretrained network, as in :class:`PretrainedFeatureExtractor`; a fitted scikit-learn model has no network to
        tune. With ``"auto"``, texts and images get the small network shipped with the package. For tables and series there is
        none that fits all: an untrained one (``"table-mlp"``, ``"series-cnn"``) is made for the rows and trained
        from scratch, all its stages at `learning_rate`, which is how a source is made; `lineage_` says so.
    freeze_depth : int, float or "all", default=0.5
        The stages before it are frozen: no gradient, no dropout, statistics of batch norm fixed. An int is a place in the list
        of stages, from the end if negative: 0 trains all, -1 the last stage only. A float in [0, 1] is a share of
        the stages. ``"all"`` freezes everything and trains the head alone; a linear head that starts as a probe is then done.
    learning_rate : float, default=1e-3
        Rate of the head at the height of the schedule.
    backbone_lr_ratio : float, default=0.1
        Rate of the top stage, as a share of the head's.
    layer_decay : float, default=0.9
        Rate of each stage, as a share of that of the stage above it, in (0, 1].
    unfreeze_every : int or None, default=None
        Gradual unfreezing: training begins with the head and the top stage, and one more stage opens after every so many
        epochs, down to `freeze_depth`. None opens all of them at once.
    l2_sp : float, default=0
        Strength of a pull of the network's weights towards their start (L2-SP): half the squared distance times this is added
        to the loss.
    head : {"linear", "mlp"}, nn.Module or callable, default="linear"
        What is put on the embedding. A module is copied; a callable gets the length of the embedding and the number of outputs,
        and returns a module. There is one output for two classes, otherwise one for each class, label or target.
    head_init : {"probe", "random"}, default="probe"
        Where the head starts. ``"probe"`` fits it to the frozen embeddings of the training rows, so that a random head does not
        distort the network before it has learned something itself.
    augment : "auto", callable or None, default=None
        Images only: a random change of each training image in each epoch, from a tensor (channels, height, width) to one of the
        same shape, such as a transform of ``torchvision.transforms.v2``. ``"auto"`` crops up to 30 percent away and mirrors
        half of the images, which is wrong for digits and letters. The frozen stages then run in every epoch.
    max_epochs : int, default=20
        Passes over the training rows.
    batch_size : int, default=32
        Rows of one step. Where they don't fit into memory, the step is computed in parts, with the same result but for
        the statistics of batch norm.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        ``"sgd"`` has a momentum of 0.9.
    weight_decay : float, default=0.01
        Of the optimizer; biases and the weights of normalisation layers have none.
    warmup_ratio : float, default=0.1
        Share of all steps in which rates rise.
    lr_scheduler : {"cosine", "linear", "constant"}, default="cosine"
        How rates fall after that.
    max_grad_norm : float or None, default=1.0
        Norm to which the gradient of a step is cut.
    early_stopping : "auto" or bool, default="auto"
        Whether validation rows choose the epoch that is kept, the start among them. ``"auto"`` does so with `X_val`, or with
        1,000 rows or more; otherwise the whole schedule is trained on all rows.
    validation_fraction : float or int, default=0.1
        Share or number of the rows that are held back for that where there is no `X_val`.
    n_iter_no_change : int or None, default=5
        Epochs without a better validation loss after which training ends.
    stability_every : int or None, default=None
        Epochs between entries of `stability_`; None keeps no record.
    source_probe : tuple of (X, y) or None, default=None
        Rows and classes of the source, on which the record follows what is forgotten: half of them teach a linear model on the
        embedding as it was, the other half is what its accuracy is taken from.
    pooling : str or sequence of str, default="auto"
        How outputs become one vector a row, as in :class:`PretrainedFeatureExtractor`.
    modality : {"auto", "text", "image", "table", "series"}, default="auto"
        Kind of row.
    weights : str or path, default=None
        Name of a set of weights, a weights file, or "random"; None for the default ones.
    max_length : int or None, default=None
        Texts: tokens kept, special tokens included; None for the network's own setting.
    prompt : str or None, default=None
        Texts: put in front of each, or the name of one of the network's own prompts.
    device : str or torch.device, default="auto"
        Where to compute: a GPU if there is one, else the processor.
    precision : {"float32", "auto", "bfloat16", "float16"}, default="float32"
        Of the frozen stages; on a GPU also of products in training (mixed precision). Weights are trained in float32, those
        of the package's networks for tables in float64.
    cache : "memory", str, path or None, default="memory"
        Where outputs of frozen stages are kept, row by row, for later epochs, folds and candidates: in this process's
        memory, or in a directory that processes share. None computes them in every epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from the network and head of the last fit.
    random_state : int, RandomState or None, default=None
        Of the order of rows, dropout, augmentation, a random head and the split for validation. Global generators are
        left alone.
    verbose : int, default=0
        Whether to show a progress bar of epochs.

    Attributes
    ----------
    backbone_ : Backbone
        The pretrained network, unchanged.
    modality_ : str
        Kind of row seen in `fit`.
    history_ : list of dict
        One entry for each epoch, 0 for the start: ``epoch``, ``train_loss`` and ``valid_loss`` (None where there is none),
        ``learning_rate`` (of the head, at the end of the epoch), ``seconds``, ``best`` (whether its weights are the ones kept).
    n_epochs_ : int
        Epochs that ran.
    stages_ : tuple of StageInfo
        Name, number of weights, frozen or not, and learning rate of each stage.
    stability_ : StabilityRecord or None
        What training did to each stage, where `stability_every` asked for it.
    lineage_ : tuple of dict
        Where the network comes from, the pretrained one first and this fit last.
    n_features_in_ : int
        Number of columns of `X`, where it has columns.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where they are all strings.

    See Also
    --------
    PretrainedFeatureExtractor : Embeddings of the network as it is.
    FineTunedClassifier : The same for classes.

    Examples
    --------
    >>> from sktransfer import FineTunedRegressor
    >>> texts = ["one bed, small", "two beds", "three beds, a garden", "four beds, a garden, a pool"]
    >>> model = FineTunedRegressor(freeze_depth="all", random_state=0).fit(texts, [100.0, 150.0, 260.0, 400.0])
    >>> model.predict(["three beds"]).shape
    (1,)
    """

    def __init__(
        self,
        backbone="auto",
        *,
        freeze_depth=0.5,
        learning_rate=1e-3,
        backbone_lr_ratio=0.1,
        layer_decay=0.9,
        unfreeze_every=None,
        l2_sp=0.0,
        head="linear",
        head_init="probe",
        augment=None,
        max_epochs=20,
        batch_size=32,
        optimizer="adamw",
        weight_decay=0.01,
        warmup_ratio=0.1,
        lr_scheduler="cosine",
        max_grad_norm=1.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=5,
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
        self.backbone_lr_ratio = backbone_lr_ratio
        self.layer_decay = layer_decay
        self.unfreeze_every = unfreeze_every
        self.l2_sp = l2_sp
        self.head = head
        self.head_init = head_init
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

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Tune the network to labelled rows.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Texts, images, table rows or series, as :class:`PretrainedFeatureExtractor` reads them.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts in the loss; a row of weight 0 is left out.
        X_val, y_val : like `X` and `y`, default=None
            Rows that choose the epoch that is kept. A search cuts them to a fold's rows if they are as many as `X`: fit
            parameters of that length are taken for one entry a row.
        sample_weight_val : array-like of shape (n_val,), default=None
            What each of them counts.

        Returns
        -------
        self : FineTunedRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, targets are not what they should be, or a row can't be read.
        TypeError
            If a row is of a type that no network of this kind reads.
        OSError
            If the network is neither on disk nor can be downloaded.

        Warns
        -----
        UserWarning
            If the loss became NaN or infinite, training was interrupted, or the network can't be cut where it is frozen.
        """
        return self._fit(X, y, sample_weight, X_val, y_val, sample_weight_val)

    def predict(self, X):
        """Predict numbers.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
            In the units of `y`.
        """
        outputs = self._through(X)
        return self._targets.predict(outputs)

    def score(self, X, y, sample_weight=None):
        """Return the coefficient of determination of predictions.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            The true numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts.

        Returns
        -------
        float
            R squared, averaged over targets: 1 is perfect, 0 as good as their mean.
        """
        return super().score(X, y, sample_weight)

    def _checked_y(self, y: Any) -> np.ndarray:
        checked = _check_y(y, multi_output=True, y_numeric=True, estimator=self)
        assert_all_finite(checked, input_name="y")  # None in an array of objects has become NaN
        if checked.ndim == 2 and checked.shape[1] == 1:
            checked = column_or_1d(checked, warn=True)
        return checked.astype(np.float64)

    def _targets_of(self, y: np.ndarray, weights: np.ndarray, earlier: TunableNetwork | None) -> Targets:
        if earlier is not None:
            self._check_known(y, self._targets, "y")
            return self._targets
        return Numbers.of(y, weights)

    def _check_known(self, y: np.ndarray, targets: Targets, name: str) -> None:
        if (y.ndim == 1) != targets.flat or y.reshape(len(y), -1).shape[1] != len(targets.center):
            raise ValueError(f"{name} has the shape {y.shape}, which does not fit y as it was in the fit.")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
