"""PretrainedFeatureExtractor: embeddings of a pretrained network as a scikit-learn transformer."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from sktransfer._compat import StrOptions, _get_output_config
from sktransfer._containers import as_container
from sktransfer._parameters import path_or_name, plain, plain_parameters, whole
from sktransfer.backbone_estimator import OF_COLUMNS, BackboneEstimator
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.encoding import Run, encode
from sktransfer.backbones.pooling import POOLINGS, WINDOW_POOLINGS
from sktransfer.backbones.readout import check_layer, make_readout, pooling_modes
from sktransfer.backbones.sklearn_models.fitted_models import FittedModel, find_model, input_tags_of, take_model
from sktransfer.backbones.sklearn_models.model_readout import ModelReadout
from sktransfer.caching import resolve_cache
from sktransfer.inputs.image_rows import refuse_one_image
from sktransfer.inputs.preparation import Preparation
from sktransfer.inputs.rows import KINDS, Rows, read_rows
from sktransfer.runtime.device import PRECISIONS, resolve_device, resolve_precision
from sktransfer.runtime.global_settings import known_settings


class PretrainedFeatureExtractor(BackboneEstimator):
    """Turn texts, images, table rows or time series into the embeddings of a pretrained network.

    The network is frozen: `fit` learns nothing from the data, it loads the network (once per process, whatever the
    number of clones) and checks that `X` holds what the network reads. `transform` runs each distinct row through it
    once; with the cache, rows that any estimator of this process has embedded in the same way are not run again, so
    that a search over the steps behind it, or over folds, costs one pass over the data.

    Parameters
    ----------
    backbone : str, path, nn.Module, ModuleBackbone or fitted estimator, default="auto"
        The pretrained network.

        - ``"auto"``: the small network shipped with the package, ``"text-static"`` for texts and ``"image-resnet"``
          for images;
        - a name from :func:`list_backbones`: a torchvision or timm classification network, whose classification layer
          is left off, or an encoder of the Hugging Face hub (any hub name with an owner works);
        - a directory with a Hugging Face or sentence-transformers model; pooling, normalisation, maximum length and
          dense layers of the latter are honoured;
        - an ``nn.Module``, read as an image network unless `modality` says otherwise, or a :class:`ModuleBackbone`, which
          says how rows are prepared. It is copied in `fit`, and never changed. An instance of one of
          torchvision's or timm's networks is read as its name is;
        - a ``SentenceTransformer``, or a ``pipeline`` of transformers over one network, with the tokenizer or
          image processor that it holds. A network of transformers alone lacks it: give both as
          `ModuleBackbone`;
        - ``"table-mlp"``, ``"table-resnet"``, ``"series-cnn"``, ``"series-lstm"`` or ``"series-transformer"``: an untrained
          network, made to measure in `fit` for the columns or channels of `X`. Here it gives random features;
        - a fitted estimator of this package, whose network is shared; in a grid of backbones wrapped in
          :class:`sklearn.frozen.FrozenEstimator`, so that clones stay fitted;
        - a fitted scikit-learn model, alone or at the end of a pipeline or search; in a grid wrapped likewise. It is copied
          in `fit`, never changed, and checks `X` itself. Its features are computed anew each time, in its own precision and
          place: `batch_size`, `device`, `precision`, `cache` and `verbose` say nothing to it.
    layer : int, str or list of int or str, default=None
        Stage whose output is the embedding: its place, counted from the end if negative, or its name. The names are in
        ``backbone_.stages`` after a fit, and in the message when there is no such stage.
        Several are concatenated. None takes the network's default.
        Of a fitted scikit-learn model: "leaves" (of decision trees and their ensembles: one column a leaf, 1 where the row
        is in it; sparse), "leaf_values" (what the reached leaves predict), "transform", "decision_function",
        "predict_proba", "predict" (classes as one column each), "score_samples". None takes the first that it has, except
        "leaf_values".
    pooling : str or list of str, default="auto"
        How outputs with several tokens or positions become one vector: "mean", "cls" (first token), "max", "last"
        (last token), "mean_sqrt_len", "weighted_mean"; several are concatenated. "auto" is the network's own way.
    normalize : "auto" or bool, default="auto"
        Whether embeddings are scaled to unit length. "auto" does as the network's publisher does for the default
        embedding, and nothing for chosen layers. Unit-length vectors need a weakly regularised head: search ``C`` of
        `LogisticRegression` up to 100 or more.
    modality : {"auto", "text", "image", "table", "series"}, default="auto"
        Kind of row in `X`. "auto" asks the backbone; where that is "auto" too, `X`: str is text; pathlib.Path, PIL
        images and uint8 arrays are images, other 2-D arrays are tables. A backbone that reads images takes str as file paths.
    weights : str or path, default=None
        For names of architectures: a weights file (safetensors, or a state dictionary saved with torch), the name of
        a set of weights, or "random". None is the architecture's default set.
    max_length : int, default=None
        Tokens kept of each text, special tokens included. None is the network's own setting.
    window_pooling : {"mean", "max"}, default=None
        How a text of more than `max_length` tokens becomes one vector. None keeps its beginning. "mean" and "max" read
        all of it, in windows of `max_length` tokens one after the other, and pool their vectors; in the mean a window
        counts by its tokens. A prompt stands in the first window only.
    prompt : str, default=None
        Text put in front of every text, or the name of one of the network's own prompts.
    truncate_dim : int, default=None
        Keep the leading values only, for networks trained so that this works (Kusupati et al. 2022,
        arXiv:2205.13147).
    batch_size : "auto" or int, default="auto"
        Rows in a batch. "auto" groups rows of like size under a budget of tokens or pixels.
    device : str or torch.device, default="auto"
        "auto" is a GPU where there is one, else the processor.
    precision : {"float32", "auto", "bfloat16", "float16"}, default="float32"
        What the network computes in; the embedding is float32 always. In float32 a row's embedding is the same to
        1e-5 whatever else is in `X`. "auto" takes bfloat16 where the hardware multiplies it natively, which is
        faster and differs by about 2e-3.
    cache : "memory", str, path or None, default="memory"
        Where embeddings are kept: in a memory cache shared by the whole process, see :func:`cache_info`; in a directory,
        created if need be, that processes and sessions share; or nowhere.
    verbose : int, default=0
        Above 0, a progress bar is shown.

    Attributes
    ----------
    backbone_ : Backbone or FittedModel
        The handle of the network or of the fitted model, shared with other estimators.
    modality_ : str or None
        Kind of row seen in `fit`. None for a fitted scikit-learn model whose tags don't tell what it reads.
    n_features_in_ : int
        Number of columns: those of a table, otherwise 1. Only defined where `X` was a table, a frame or an array with one
        column.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Only defined where `X` was a frame whose columns are named by str.

    See Also
    --------
    list_backbones : What can be named.
    ModuleBackbone : A network of yours, with its preparation.
    cache_info : State of a cache.

    Notes
    -----
    A fitted estimator pickles light: the pickle holds the network's name and fingerprint where it can be loaded
    again; loading it fails when the weights are gone or have changed. For an ``nn.Module`` it holds the weights, twice:
    as the parameter `backbone` and as the copy made in `fit`.

    What is read out of the network (`backbone` to `truncate_dim`) is fixed by `fit`; `batch_size`, `device`, `precision`,
    `cache` and `verbose` may be set afterwards and take effect at once.

    The networks for tables read strings as categories, with a code of their own for strings not seen in `fit` and for
    missing ones. For missing numbers the network gets the mean and an indicator. In columns where none was missing in
    `fit`, the median of its rows stands for a missing number, and the code of unseen strings for a missing one. Infinity
    is an error, as is a column of free text in `fit`; identifiers and dates as strings get a warning there. A row's
    embedding is the same to the last bit whatever
    else is in `X`, since in these networks "float32" is computed in float64. Series may not hold missing values.

    Which layer transfers best depends on how far the new task is from the old one (Yosinski et al. 2014,
    arXiv:1411.1792), so `layer` is worth a grid search.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktransfer import PretrainedFeatureExtractor
    >>> texts = ["a lovely film", "what a waste of time", "great fun", "dull and far too long"]
    >>> model = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(C=10))
    >>> model.fit(texts, ["good", "bad", "good", "bad"]).predict(["really great film"])
    array(['good'], dtype='<U4')
    """

    _parameter_constraints: dict[str, Any] = {
        "backbone": "no_validation",
        "layer": [Integral, str, list, tuple, None],
        "pooling": [StrOptions({"auto", *POOLINGS}), list, tuple],
        "normalize": [StrOptions({"auto"}), "boolean"],
        "modality": [StrOptions({"auto", *KINDS})],
        "weights": [path_or_name(), None],
        "max_length": [whole(1), None],
        "window_pooling": [StrOptions(set(WINDOW_POOLINGS)), None],
        "prompt": [str, None],
        "truncate_dim": [whole(1), None],
        "batch_size": [StrOptions({"auto"}), whole(1)],
        "device": [str, torch.device],
        "precision": [StrOptions(set(PRECISIONS))],
        "cache": [str, os.PathLike, None],
        "verbose": ["verbose"],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        check_layer(self.layer)
        pooling_modes(self.pooling)

    def __init__(
        self,
        backbone="auto",
        *,
        layer=None,
        pooling="auto",
        normalize="auto",
        modality="auto",
        weights=None,
        max_length=None,
        window_pooling=None,
        prompt=None,
        truncate_dim=None,
        batch_size="auto",
        device="auto",
        precision="float32",
        cache="memory",
        verbose=0,
    ):
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.normalize = normalize
        self.modality = modality
        self.weights = weights
        self.max_length = max_length
        self.window_pooling = window_pooling
        self.prompt = prompt
        self.truncate_dim = truncate_dim
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.cache = cache
        self.verbose = verbose

    @known_settings()
    def fit(self, X, y=None):
        """Load the network and check that `X` holds what it reads.

        Parameters
        ----------
        X : list or other sequence, ndarray, tensor, Series or DataFrame of n_samples rows
            Texts: str, in one column. Images, in one column: file paths, PIL images, arrays of shape (height, width) or
            (height, width, channels), or one array of all of them with the rows first. Pixels are uint8 in 0..255 or
            float in 0..1. Sizes and colour modes may differ. One image is ``X[None]``.
            Tables: a frame or array of shape (n_samples, n_columns), whose columns are numbers, truth values or strings.
            Series: an array of shape (n_samples, n_channels, n_time_points), a frame or array of shape
            (n_samples, n_time_points) of one channel, or arrays of shape (n_channels, n_time_points) or
            (n_time_points,) in a list or one column, which may differ in length.
            With a fitted scikit-learn model: what that reads, sparse matrices too where it does.
        y : None
            Ignored.

        Returns
        -------
        self : PretrainedFeatureExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, `X` is empty, holds infinity, missing values (but see Notes) or another kind of row
            than the network reads.
        TypeError
            If a row is of a type that no network of this kind reads.
        OSError
            If an image file does not exist, or the network is neither on disk nor can be downloaded.
        sklearn.exceptions.NotFittedError
            If an estimator given as `backbone` is not fitted.
        """
        # Nothing is set before all has gone well: a failed fit leaves the estimator as it was.
        fitted = self._as_it_is()._fitted_to(X)
        self._replace_fitted(fitted, gone=(*OF_COLUMNS, "_preparation"))
        return self

    def _fitted_to(self, X: Any) -> dict[str, Any]:
        """Return the attributes of a fit to `X`."""
        self._validate_params()
        device = resolve_device(self.device)
        resolve_cache(self.cache)  # a directory that can't serve is an error before the network is loaded
        model = find_model(self.backbone)
        if model is not None:
            return self._fit_model(model, X)
        resolve_precision(self.precision, device, "text")
        own = plain_parameters(self)
        X = as_container(X)
        backbone, rows = self._resolve(X)
        if rows.kind == "image":
            refuse_one_image(X, None)
        self._warn_of_columns(backbone, rows)
        preparation = backbone.preparation.with_options(max_length=own.max_length, prompt=own.prompt)
        rows = Rows(rows.kind, preparation.read(rows.values))
        preparation = preparation.fitted_to(rows.values)
        readout = make_readout(
            backbone,
            preparation,
            layer=own.layer,
            pooling=own.pooling,
            normalize=own.normalize,
            truncate_dim=own.truncate_dim,
            window_pooling=own.window_pooling,
        )
        # The first row shows the number of values; with the cache, it is not embedded again.
        first = Rows(rows.kind, rows.values[:1])
        dimension = encode(backbone, preparation, readout, first, self._run(preparation)).shape[1]
        if self.truncate_dim is not None and self.truncate_dim > dimension:
            raise ValueError(
                f"truncate_dim={self.truncate_dim} is more than the {dimension} values that this embedding has."
            )
        return {
            **self._columns_of(X, rows),
            "backbone_": backbone,
            "modality_": rows.kind,
            "_preparation": preparation,
            "_readout": readout,
            "_n_features_out": dimension,
        }

    @known_settings()
    def transform(self, X):
        """Embed rows.

        Parameters
        ----------
        X : list, ndarray, Series or DataFrame of n_samples rows
            Rows of the kind seen in `fit`; tables with the same columns, series with as many channels.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Or a frame, see `set_output`. Leaves of trees are a sparse matrix in CSR format.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If `X` holds another kind of row than in `fit`, a row can't be read, or the network gives NaN for it.
        """
        check_is_fitted(self)
        self._validate_params()
        if isinstance(self.backbone_, FittedModel):
            return self._transform_by_model(X)
        X = as_container(X)
        rows = read_rows(X, self.modality_)
        self._check_columns(X, rows, reset=False)
        rows = Rows(rows.kind, self._preparation.read(rows.values))
        return encode(self.backbone_, self._preparation, self._readout, rows, self._run(self._preparation))

    def _fit_model(self, model: Any, X: Any) -> dict[str, Any]:
        """Take in a fitted scikit-learn model, which checks `X` itself."""
        for name in ("pooling", "weights", "max_length", "window_pooling", "prompt"):
            default = "auto" if name == "pooling" else None
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} says nothing to a fitted scikit-learn model, which reads X in its own "
                    f"way. Leave {name}={default!r}."
                )
        source = take_model(model)
        if source.kind is not None and self.modality not in ("auto", source.kind):
            raise ValueError(f"modality={self.modality!r}, but the fitted {source.name} reads {source.kind} rows.")
        own = plain_parameters(self)
        readout = ModelReadout(source, own.layer, normalize=own.normalize is True, truncate_dim=own.truncate_dim)
        kind = source.kind if self.modality == "auto" else self.modality
        rows = _rows_for_model(X, kind)
        dimension = readout.fit(rows.values)
        if rows.kind == "text":
            columns = self._columns_of(X, rows)
        else:
            # Those that the model expects: it is the one that compares them.
            names = ("n_features_in_", "feature_names_in_")
            columns = {name: getattr(source.model, name) for name in names if hasattr(source.model, name)}
        return {
            **columns,
            "backbone_": source,
            "modality_": kind,
            "_readout": readout,
            "_n_features_out": dimension,
        }

    def _transform_by_model(self, X: Any) -> Any:
        rows = _rows_for_model(X, self.modality_)
        if rows.kind == "text":
            self._check_columns(X, rows, reset=False)
        features = self._readout.read(rows.values)
        container = _get_output_config("transform", self)["dense"]
        if issparse(features) and container != "default":
            raise ValueError(
                f"{container.capitalize()} output does not support sparse data. The features of the fitted "
                f"{self.backbone_.name} are sparse: choose dense ones with layer= (for trees 'leaf_values'), or "
                "set_output(transform='default')."
            )
        return features

    def _run(self, preparation: Preparation) -> Run:
        """Say how an encoding is carried out."""
        batch_size = None if self.batch_size == "auto" else plain(self.batch_size)
        return self._frozen_run(preparation, batch_size=batch_size, progress=bool(self.verbose))

    def __sktransfer_backbone__(self) -> Backbone | FittedModel:
        """Hand the network to another estimator, as its `backbone`."""
        check_is_fitted(self)
        return self.backbone_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "backbone_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        model = find_model(self.backbone)
        if model is not None:
            tags.input_tags = input_tags_of(model)
        return tags


def _rows_for_model(X: Any, kind: str | None) -> Rows:
    """Leave `X` as it is, for the model to check; only texts may stand in a frame, which no vectorizer reads."""
    if kind == "text":
        return read_rows(X, "text")
    X = nw.to_native(X, pass_through=True)
    if kind is None and getattr(X, "ndim", 1) == 2 and hasattr(X, "columns") and X.shape[1] == 1:
        # A model that counts no columns would take a frame for the list of its columns' names.
        X = X.iloc[:, 0] if hasattr(X, "iloc") else X[X.columns[0]]
    return Rows(kind or "table", X)
