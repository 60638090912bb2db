"""FineTunedClassifier and FineTunedRegressor: a pretrained network, tuned to labelled rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.callback import with_callbacks
from sklearn.utils import column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array

from sktransfer._compat import StrOptions, _check_y
from sktransfer._labels import check_size, check_targets
from sktransfer._parameters import is_number, plain
from sktransfer._row_weights import of_any_size
from sktransfer.fine_tuning.base import TunedEstimator
from sktransfer.fine_tuning.configuration import Start
from sktransfer.fine_tuning.holdout import n_held_out
from sktransfer.inputs.rows import about
from sktransfer.training.network import TunableNetwork
from sktransfer.training.objective import Samples
from sktransfer.training.targets import Classes, Labels, Numbers, Targets


class FineTunedClassifier(ClassifierMixin, TunedEstimator):
    """Classify texts, images, table rows or series with a pretrained network that is tuned to them.

    The stages of the network before `freeze_depth` stay as they are, and what they give is
    computed once for each row, whatever the number of epochs, folds and candidates of a search. A
    copy of the others is trained together with a head. By default a probe starts the head, and
    stages are trained with discriminative learning rates, warm-up and cosine. With 1,000 rows or
    more, validation keeps the best epoch, the start among them.

    Parameters
    ----------
    backbone : str, path, nn.Module, ModuleBackbone or fitted estimator, default="auto"
        The pretrained network, as in :class:`PretrainedFeatureExtractor`; a fitted scikit-learn model has no network to
        tune. With ``"auto"``, texts and images get the small network shipped with the package. For tables and series there is
        none that fits all: an untrained one (``"table-mlp"``, ``"series-cnn"``) is made for the rows and trained
        from scratch, all its stages at `learning_rate`, which is how a source is made; `lineage_` says so.
    freeze_depth : int, float, "all" or "auto", default="auto"
        The stages before it are frozen: no gradient, no dropout, statistics of batch norm fixed.
        An int is a place in the list of stages, from the end if negative: 0 trains all, -1 the
        last stage only. A float in [0, 1] is a share of the stages. ``"all"`` freezes everything
        and trains the head alone; a linear head that starts as a probe is then done. ``"auto"``
        trains all stages where `source_shift_` is above 0.1, elsewhere the upper half. An
        untrained network has nothing worth keeping: all its stages are trained.
    learning_rate : float or "auto", default="auto"
        Peak learning rate of the top stage that is trained. ``"auto"`` is 1e-4 for pretrained
        networks that read texts, or whose `source_shift_` is at most 0.1; 3e-4 for others, and
        1e-3 for untrained ones. A head that starts as a probe is trained at the same rate.
    head_lr_ratio : float, default=10
        Learning rate of a head that starts at random, or on a network that is frozen, as a
        multiple of `learning_rate`. In an untrained network it is 1.
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
        Where the head starts. ``"probe"`` fits it to the frozen embeddings of the training rows,
        with a penalty that cross-validation chooses, so that a random head does not distort the
        network before it has learned something itself. Before stages are trained under it, its
        scores are divided by a temperature at which the training loss is the cross-validated one:
        otherwise there is next to no gradient. Not where `source_shift_` is at most 0.1. A head
        that is not linear is trained on the embeddings alone first, for `max_epochs`.
    freeze_batch_norm : "auto" or bool, default="auto"
        Whether batch norm keeps the statistics of pretraining in the stages that are trained; in
        frozen ones it always does. ``"auto"`` does so under a head that starts as a probe unless
        `source_shift_` is above 0.35. In an untrained network they are learned.
    augment : "auto", callable or None, default=None
        Images only: a random change of each training image in each epoch, from a tensor (channels, height, width) to one of the
        same shape and type, such as a transform of ``torchvision.transforms.v2``. It sees what the network's preparation
        makes: uint8, resized, for networks of the catalogue; whatever a `ModuleBackbone`'s own preparation gives. ``"auto"``
        crops up to 30 percent away and mirrors half of the images, which is wrong for digits and letters. The frozen stages
        then run in every epoch.
    class_weight : dict, "balanced" or None, default=None
        Weights of classes, by label; ``"balanced"`` makes all classes count the same. Rows of a class of weight 0 are left
        out, and so is the class.
    max_epochs : int or "auto", default="auto"
        Passes over the training rows. ``"auto"`` is 20, and 6 for a pretrained network with 1,000 rows or more, of which each
        pass is many steps.
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
        Whether validation rows choose the epoch that is kept, the start among them. ``"auto"``
        does so with `X_val`, or with 1,000 rows or more and enough of each class; otherwise the
        whole schedule is trained on all rows.
    validation_fraction : float or int, default=0.1
        Share or number of the rows that are held back for that where there is no `X_val`, in the same mix of classes.
    n_iter_no_change : int or None, default=5
        Epochs without a better validation loss after which training ends.
    weight_interpolation : float, default=1
        Coefficient, in [0, 1], with which the trained weights are interpolated with the initial
        ones at the end (WiSE-FT): 1 keeps the trained ones, 0 the initial ones. Only for a
        pretrained network under a head that starts as a probe, and not where `warm_start` goes on.
    stability_every : int or None, default=None
        Epochs between entries of `stability_`; None keeps no record.
    source_probe : tuple of (X, y) or None, default=None
        Rows and classes of the source, on which the record follows what is forgotten: half of them teach a linear model on the
        embedding as it was, the other half is what its accuracy is taken from.
    pooling : str or sequence of str, default="auto"
        How outputs become one vector a row, as in :class:`PretrainedFeatureExtractor`.
    modality : {"auto", "text", "image", "table", "series"}, default="auto"
        Kind of row. Where neither this nor the backbone says it, str is a text and `pathlib.Path` the file of an image.
    weights : str or path, default=None
        Name of a set of weights, a weights file, or "random", which are the same in each fit; None for the default ones.
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
        Of the order of rows, dropout, augmentation, a random head, the weights of an untrained network and the split for
        validation. Global generators are left alone.
    verbose : int, default=0
        Whether to show a progress bar of epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; for several labels a row, the places of their columns.
    backbone_ : Backbone
        The pretrained network, unchanged.
    modality_ : str
        Kind of row seen in `fit`.
    history_ : list of dict
        One entry for each epoch, 0 for the start: ``epoch``, ``train_loss`` and ``valid_loss``
        (None where there is none), ``learning_rate`` (of the head, at the end of the epoch),
        ``seconds``, ``best`` (whether its weights are the ones kept).
    n_epochs_ : int
        Epochs that ran.
    source_shift_ : float or None
        How far the training rows are from those of the source: the divergence (Kullback-Leibler,
        in nats) of what enters each batch norm from the statistics stored there, as normal
        distributions; the median over channels, the mean over layers. Images like those of
        pretraining have less than 0.1. None for networks without stored statistics (transformers)
        and untrained ones.
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
    Ruder 2018, arXiv:1801.06146. L2-SP: Li et al. 2018, arXiv:1802.01483. Weights between start and end: Wortsman et al. 2022,
    arXiv:2109.01903.

    Examples
    --------
    >>> from sktransfer import FineTunedClassifier
    >>> texts = ["the card was lost", "my card is gone", "what is the exchange rate", "which rate do I get"]
    >>> model = FineTunedClassifier(freeze_depth="all", random_state=0).fit(texts, ["card", "card", "rate", "rate"])
    >>> model.predict(["I lost my card"])
    array(['card'], dtype='<U4')
    """

    _parameter_constraints: dict = {
        **TunedEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        for label, weight in self.class_weight.items() if isinstance(self.class_weight, dict) else ():
            if not is_number(weight) or weight < 0:
                raise ValueError(f"class_weight of {label!r} is {weight!r}; weights are finite and not negative.")

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
        class_weight=None,
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
        super().__init__(
            backbone,
            freeze_depth=freeze_depth,
            learning_rate=learning_rate,
            head_lr_ratio=head_lr_ratio,
            layer_decay=layer_decay,
            unfreeze_every=unfreeze_every,
            l2_sp=l2_sp,
            head=head,
            head_init=head_init,
            freeze_batch_norm=freeze_batch_norm,
            augment=augment,
            max_epochs=max_epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            weight_decay=weight_decay,
            warmup_ratio=warmup_ratio,
            lr_scheduler=lr_scheduler,
            max_grad_norm=max_grad_norm,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            weight_interpolation=weight_interpolation,
            stability_every=stability_every,
            source_probe=source_probe,
            pooling=pooling,
            modality=modality,
            weights=weights,
            max_length=max_length,
            prompt=prompt,
            device=device,
            precision=precision,
            cache=cache,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

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
            What each row counts in the loss, by its share of all; a row of weight 0 is left out.
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
            If the loss became NaN or infinite, or the network can't be cut where it is frozen.
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
        check_targets(y)
        return super().score(X, y, of_any_size(sample_weight, X))

    def _checked_y(self, y: Any) -> np.ndarray:
        check_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            labels = check_array(y, accept_sparse=True, input_name="y")
            labels = labels.toarray() if issparse(labels) else labels
            if not np.isin(labels, (0, 1)).all():
                raise ValueError(
                    f"y has a column for each label, with the values {np.unique(labels).tolist()}; they have to be 0 and 1, "
                    "1 where a row has the label."
                )
            return labels.astype(np.int64)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns of classes. Give one column, a column of 0 and 1 for each label, or fit one classifier "
                "for each column, see sklearn.multioutput.MultiOutputClassifier."
            )
        check_classification_targets(y)
        return _check_y(y, estimator=self)

    def _targets_of(self, samples: Samples, earlier: TunableNetwork | None) -> Targets:
        y = samples.y
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

    def _class_weights(self, y: np.ndarray, weights: np.ndarray, earlier: Targets | None) -> dict[Any, float]:
        if self.class_weight is None:
            return {}
        if y.ndim == 2:
            raise ValueError("class_weight is for one class a row, but y has several labels. Use sample_weight.")
        # Rows without weight are not there, and others count as often as they weigh.
        there = weights > 0
        classes = np.unique(y[there])
        if isinstance(self.class_weight, Mapping) and isinstance(earlier, Classes):
            classes = earlier.classes  # a batch need not hold every class that has a weight
        found = compute_class_weight(self.class_weight, classes=classes, y=y[there], sample_weight=weights[there])
        made = dict(zip(classes.tolist(), found.tolist(), strict=True))
        return {label: made.get(label, 1.0) for label in np.unique(y).tolist()}

    def _check_training(self, y: np.ndarray, all_y: np.ndarray) -> None:
        if all_y.ndim == 1 and len(lost := np.setdiff1d(all_y, y)):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} holds back all rows of the class {lost.tolist()[0]!r}, so "
                "that none is left to learn from. Make it smaller, or set early_stopping=False."
            )

    def _enough_to_split(self, y: np.ndarray) -> bool:
        if y.ndim == 2:
            return True
        counts = np.unique(y, return_counts=True)[1]
        held_out = plain(self.validation_fraction)
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
        held_out = plain(self.validation_fraction)
        held_back = n_held_out(held_out, len(y))
        if held_back < len(labels) or len(y) - held_back < len(labels):
            raise ValueError(
                f"validation_fraction={held_out} of {len(y)} rows holds back {held_back} of them; there are {len(labels)} "
                "classes, which must all be on both sides. Change validation_fraction, or set early_stopping=False."
            )
        return y

    def _fitted_attributes(self, start: Start, targets: Any, network: TunableNetwork) -> dict[str, Any]:
        # With labels, their places: probabilities are one array, for which scikit-learn expects one array here.
        classes = np.arange(targets.n_labels) if isinstance(targets, Labels) else targets.classes
        return {**super()._fitted_attributes(start, targets, network), "classes_": classes}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class FineTunedRegressor(RegressorMixin, TunedEstimator):
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
    freeze_depth : int, float, "all" or "auto", default="auto"
        The stages before it are frozen: no gradient, no dropout, statistics of batch norm fixed.
        An int is a place in the list of stages, from the end if negative: 0 trains all, -1 the
        last stage only. A float in [0, 1] is a share of the stages. ``"all"`` freezes everything
        and trains the head alone; a linear head that starts as a probe is then done. ``"auto"``
        trains all stages where `source_shift_` is above 0.1, elsewhere the upper half. An
        untrained network has nothing worth keeping: all its stages are trained.
    learning_rate : float or "auto", default="auto"
        Peak learning rate of the top stage that is trained. ``"auto"`` is 1e-4 for pretrained
        networks that read texts, or whose `source_shift_` is at most 0.1; 3e-4 for others, and
        1e-3 for untrained ones. A head that starts as a probe is trained at the same rate.
    head_lr_ratio : float, default=10
        Learning rate of a head that starts at random, or on a network that is frozen, as a
        multiple of `learning_rate`. In an untrained network it is 1.
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
        Where the head starts. ``"probe"`` fits it to the frozen embeddings of the training rows,
        with a penalty that cross-validation chooses, so that a random head does not distort the
        network before it has learned something itself. Before stages are trained under it, its
        scores are divided by a temperature at which the training loss is the cross-validated one:
        otherwise there is next to no gradient. Not where `source_shift_` is at most 0.1. A head
        that is not linear is trained on the embeddings alone first, for `max_epochs`.
    freeze_batch_norm : "auto" or bool, default="auto"
        Whether batch norm keeps the statistics of pretraining in the stages that are trained; in
        frozen ones it always does. ``"auto"`` does so under a head that starts as a probe unless
        `source_shift_` is above 0.35. In an untrained network they are learned.
    augment : "auto", callable or None, default=None
        Images only: a random change of each training image in each epoch, from a tensor (channels, height, width) to one of the
        same shape and type, such as a transform of ``torchvision.transforms.v2``. It sees what the network's preparation
        makes: uint8, resized, for networks of the catalogue; whatever a `ModuleBackbone`'s own preparation gives. ``"auto"``
        crops up to 30 percent away and mirrors half of the images, which is wrong for digits and letters. The frozen stages
        then run in every epoch.
    max_epochs : int or "auto", default="auto"
        Passes over the training rows. ``"auto"`` is 20, and 6 for a pretrained network with 1,000 rows or more, of which each
        pass is many steps.
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
    weight_interpolation : float, default=1
        Coefficient, in [0, 1], with which the trained weights are interpolated with the initial
        ones at the end (WiSE-FT): 1 keeps the trained ones, 0 the initial ones. Only for a
        pretrained network under a head that starts as a probe, and not where `warm_start` goes on.
    stability_every : int or None, default=None
        Epochs between entries of `stability_`; None keeps no record.
    source_probe : tuple of (X, y) or None, default=None
        Rows and classes of the source, on which the record follows what is forgotten: half of them teach a linear model on the
        embedding as it was, the other half is what its accuracy is taken from.
    pooling : str or sequence of str, default="auto"
        How outputs become one vector a row, as in :class:`PretrainedFeatureExtractor`.
    modality : {"auto", "text", "image", "table", "series"}, default="auto"
        Kind of row. Where neither this nor the backbone says it, str is a text and `pathlib.Path` the file of an image.
    weights : str or path, default=None
        Name of a set of weights, a weights file, or "random", which are the same in each fit; None for the default ones.
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
        Of the order of rows, dropout, augmentation, a random head, the weights of an untrained network and the split for
        validation. Global generators are left alone.
    verbose : int, default=0
        Whether to show a progress bar of epochs.

    Attributes
    ----------
    backbone_ : Backbone
        The pretrained network, unchanged.
    modality_ : str
        Kind of row seen in `fit`.
    history_ : list of dict
        One entry for each epoch, 0 for the start: ``epoch``, ``train_loss`` and ``valid_loss``
        (None where there is none), ``learning_rate`` (of the head, at the end of the epoch),
        ``seconds``, ``best`` (whether its weights are the ones kept).
    n_epochs_ : int
        Epochs that ran.
    source_shift_ : float or None
        How far the training rows are from those of the source: the divergence (Kullback-Leibler,
        in nats) of what enters each batch norm from the statistics stored there, as normal
        distributions; the median over channels, the mean over layers. Images like those of
        pretraining have less than 0.1. None for networks without stored statistics (transformers)
        and untrained ones.
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

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Tune the network to labelled rows.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Texts, images, table rows or series, as :class:`PretrainedFeatureExtractor` reads them.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Numbers. Where they are all alike that number is what is predicted.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts in the loss, by its share of all; a row of weight 0 is left out.
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
            If the loss became NaN or infinite, or the network can't be cut where it is frozen.
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
        check_targets(y, word="target")
        return super().score(X, y, of_any_size(sample_weight, X))

    def _checked_y(self, y: Any) -> np.ndarray:
        if issparse(y):
            raise TypeError("y is sparse. FineTunedRegressor needs all numbers in memory: convert it with y.toarray().")
        check_targets(y, word="target")
        with about("y"):
            checked = _check_y(y, multi_output=True, y_numeric=True, estimator=self).astype(np.float64)
        check_size(checked)
        if checked.ndim == 2 and checked.shape[1] == 1:
            checked = column_or_1d(checked, warn=True)
        return checked

    def _targets_of(self, samples: Samples, earlier: TunableNetwork | None) -> Targets:
        if earlier is not None:
            self._check_known(samples.y, self._targets, "y")
            return self._targets
        return Numbers.of(samples.y, samples.weights)

    def _check_known(self, y: np.ndarray, targets: Targets, name: str) -> None:
        if (y.ndim == 1) != targets.flat or y.reshape(len(y), -1).shape[1] != len(targets.center):
            raise ValueError(f"{name} has the shape {y.shape}, which does not fit y as it was in the fit.")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
