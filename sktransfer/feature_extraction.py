"""PretrainedFeatureExtractor: embeddings of a pretrained network as a scikit-learn transformer."""

from __future__ import annotations

import copy
import os
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.encoding import Readout, Run, encode
from sktransfer.backbones.loading import load_backbone
from sktransfer.backbones.pooling import POOLINGS
from sktransfer.backbones.preparation import Preparation
from sktransfer.backbones.rows import KINDS, Rows, read_rows
from sktransfer.caching.memory import memory_cache
from sktransfer.runtime.device import PRECISIONS, resolve_device, resolve_precision


class PretrainedFeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn texts or images into the embeddings of a pretrained network.

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
        - an ``nn.Module``, read as an image network, or a :class:`ModuleBackbone`, which says how rows are prepared.
          It is copied in `fit`, and never changed;
        - a fitted estimator of this package, whose network is shared; in a grid of backbones wrapped in
          :class:`sklearn.frozen.FrozenEstimator`, so that clones stay fitted.
    layer : int, str or list of int or str, default=None
        Stage whose output is the embedding: its place, counted from the end if negative, or its name. The names are in
        ``backbone_.stages`` after a fit, and in the message when there is no such stage.
        Several are concatenated. None takes the network's default.
    pooling : str or list of str, default="auto"
        How outputs with several tokens or positions become one vector: "mean", "cls" (first token), "max", "last"
        (last token), "mean_sqrt_len", "weighted_mean"; several are concatenated. "auto" is the network's own way.
    normalize : "auto" or bool, default="auto"
        Whether embeddings are scaled to unit length. "auto" does as the network's publisher does for the default
        embedding, and nothing for chosen layers. Unit-length vectors need a weakly regularised head: search ``C`` of
        `LogisticRegression` up to 100 or more.
    modality : {"auto", "text", "image", "table", "series"}, default="auto"
        Kind of row in `X`. "auto" asks the backbone; where that is "auto" too, `X`: str is text; pathlib.Path, PIL
        images and uint8 arrays are images. A backbone that reads images takes str as file paths.
    weights : str or path, default=None
        For names of architectures: a weights file (safetensors, or a state dictionary saved with torch), the name of
        a set of weights, or "random". None is the architecture's default set.
    max_length : int, default=None
        Tokens kept of each text, special tokens included. None is the network's own setting.
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
    cache : "memory" or None, default="memory"
        Where embeddings are kept: in a memory cache shared by the whole process, see :func:`cache_info`, or nowhere.
    verbose : int, default=0
        Above 0, a progress bar is shown.

    Attributes
    ----------
    backbone_ : Backbone
        The network's handle, shared with other estimators.
    modality_ : str
        Kind of row seen in `fit`.
    n_features_in_ : int
        Number of columns, always 1. Only defined where `X` was a frame or an array with one column.
    feature_names_in_ : ndarray of shape (1,)
        Name of the column. Only defined where `X` was a frame.

    See Also
    --------
    list_backbones : What can be named.
    ModuleBackbone : A network of yours, with its preparation.
    cache_info : State of the memory cache.

    Notes
    -----
    A fitted estimator pickles light: the pickle holds the network's name and fingerprint where it can be loaded
    again; loading it fails when the weights are gone or have changed. For an ``nn.Module`` it holds the weights, twice:
    as the parameter `backbone` and as the copy made in `fit`.

    What is read out of the network (`backbone` to `truncate_dim`) is fixed by `fit`; `batch_size`, `device`, `precision`,
    `cache` and `verbose` may be set afterwards and take effect at once.

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
        "weights": [str, os.PathLike, None],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "prompt": [str, None],
        "truncate_dim": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "precision": [StrOptions(set(PRECISIONS))],
        "cache": [StrOptions({"memory"}), None],
        "verbose": ["verbose"],
    }

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
        self.prompt = prompt
        self.truncate_dim = truncate_dim
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.cache = cache
        self.verbose = verbose

    def fit(self, X, y=None):
        """Load the network and check that `X` holds what it reads.

        Parameters
        ----------
        X : list, ndarray, Series or one-column DataFrame of n_samples rows
            Texts (str) or images: file paths, PIL images, arrays of shape (height, width) or
            (height, width, channels), or one array of all of them with the rows first. Pixels are uint8 in 0..255 or
            float in 0..1. Sizes and colour modes may differ.
        y : None
            Ignored.

        Returns
        -------
        self : PretrainedFeatureExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, `X` is empty, holds missing values or another kind of row than the network
            reads.
        TypeError
            If a row is of a type that no network of this kind reads.
        OSError
            If an image file does not exist, or the network is neither on disk nor can be downloaded.
        """
        self._validate_params()
        resolve_device(self.device)
        kind, backbone = self._resolve(X)
        rows = read_rows(X, kind or backbone.kind)
        preparation = backbone.preparation.with_options(max_length=self.max_length, prompt=self.prompt)
        preparation = preparation.fitted_to(rows.values)
        layers = _find_layers(backbone, preparation, self.layer)
        readout = _make_readout(backbone, layers, self.pooling, self.normalize, self.truncate_dim)
        # The first row shows the number of values; with the cache, it is not embedded again.
        first = Rows(rows.kind, rows.values[:1])
        dimension = encode(backbone, preparation, readout, first, self._run(rows.kind)).shape[1]
        if self.truncate_dim is not None and self.truncate_dim > dimension:
            raise ValueError(
                f"truncate_dim={self.truncate_dim} is more than the {dimension} values that this embedding has."
            )
        # Nothing is set before all has gone well: a failed fit leaves the estimator as it was.
        self._check_columns(X, reset=True)
        self.backbone_ = backbone
        self.modality_ = rows.kind
        self._preparation = preparation
        self._readout = readout
        self._n_features_out = dimension
        return self

    def transform(self, X):
        """Embed rows.

        Parameters
        ----------
        X : list, ndarray, Series or one-column DataFrame of n_samples rows
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
        check_is_fitted(self)
        self._validate_params()
        rows = read_rows(X, self.modality_)
        self._check_columns(X, reset=False)
        return encode(self.backbone_, self._preparation, self._readout, rows, self._run(rows.kind))

    def _resolve(self, X: Any) -> tuple[str | None, Backbone]:
        """Find out what kind of rows `X` holds, as far as the backbone leaves it open, and load the backbone."""
        kind = None if self.modality == "auto" else self.modality
        if isinstance(self.backbone, str) and self.backbone == "auto" and kind is None:
            kind = read_rows(X, None).kind
        return kind, load_backbone(self.backbone, weights=self.weights, kind=kind)

    def _run(self, kind: str) -> Run:
        """Say how an encoding is carried out; these parameters take effect without a new fit."""
        device = resolve_device(self.device)
        return Run(
            device=device,
            dtype=resolve_precision(self.precision, device, kind),
            batch_size=None if self.batch_size == "auto" else self.batch_size,
            cache=memory_cache if self.cache == "memory" else None,
            progress=bool(self.verbose),
        )

    def _check_columns(self, X: Any, *, reset: bool) -> None:
        """Keep or compare the column's name; rows without columns have nothing to compare."""
        for name in ("n_features_in_", "feature_names_in_") if reset else ():
            self.__dict__.pop(name, None)
        is_frame = isinstance(nw.from_native(X, eager_only=True, pass_through=True), nw.DataFrame)
        if is_frame or (isinstance(X, np.ndarray) and X.ndim == 2):
            validate_data(self, X, reset=reset, skip_check_array=True)

    def __sktransfer_backbone__(self) -> Backbone:
        """Hand the network to another estimator, as its `backbone`."""
        check_is_fitted(self)
        return self.backbone_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "backbone_")

    def __sklearn_clone__(self):
        # A module or a fitted estimator is only read, so clones share it: scikit-learn would copy a module's weights
        # for every candidate and fold, and make a fitted estimator an unfitted one.
        if not isinstance(self.backbone, nn.Module) and not hasattr(self.backbone, "__sktransfer_backbone__"):
            return super().__sklearn_clone__()
        shell = copy.copy(self)
        shell.backbone = "auto"
        cloned = super(PretrainedFeatureExtractor, shell).__sklearn_clone__()
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
        kind = self.modality
        tags.input_tags.two_d_array = kind in ("table",)
        tags.input_tags.string = kind in ("auto", "text", "image")
        tags.input_tags.three_d_array = kind in ("auto", "image")
        tags.input_tags.one_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _find_layers(backbone: Backbone, preparation: Preparation, layer: Any) -> tuple[int, ...] | None:
    """Turn the parameter `layer` into places among the stages."""
    if layer is None:
        return None
    asked = [layer] if isinstance(layer, Integral | str) else list(layer)
    if not asked or any(isinstance(one, bool) or not isinstance(one, Integral | str) for one in asked):
        raise ValueError(f"layer must be the place or name of a stage, or a list of those. Got {layer!r}.")
    return tuple(backbone.find_layer(one, preparation) for one in asked)


def _make_readout(
    backbone: Backbone, layers: tuple[int, ...] | None, pooling: Any, normalize: Any, truncate_dim: int | None
) -> Readout:
    """Check how the outputs are to be pooled and scaled."""
    modes: str | tuple[str, ...] | None = None
    if not isinstance(pooling, str):
        unknown = [mode for mode in pooling if mode not in POOLINGS]
        if unknown or not pooling:
            raise ValueError(f"pooling must be 'auto' or among {', '.join(POOLINGS)}. Got {pooling!r}.")
        modes = tuple(pooling)
    elif pooling != "auto":
        modes = pooling
    if normalize == "auto":
        normalize = backbone.normalize and layers is None
    return Readout(layers, modes, bool(normalize), truncate_dim)
