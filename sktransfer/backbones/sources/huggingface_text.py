"""Text encoders of transformers, bare or in a sentence-transformers directory."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
)

from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.identity.fingerprint import describe, fingerprint
from sktransfer.backbones.sources.catalogue import card_of
from sktransfer.backbones.sources.huggingface import drop_unused, load_pretrained, quiet_transformers, settings_of
from sktransfer.backbones.sources.modules import accepted_arguments
from sktransfer.backbones.sources.sentence_transformers_format import Recipe, check_widths
from sktransfer.inputs.text import TextPreparation, tokenizer_of

# Their position table begins behind the padding token's place, so that many places are lost.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text"}
_DEFAULT_LENGTH = 512
# How transformers calls the classes that are the encoder of an encoder and decoder: T5EncoderModel.
_ENCODER_CLASSES = "EncoderModel"


def load_text(origin: Origin, directory: Path, config: Any, recipe: Recipe | None) -> Backbone:
    """Load an encoder and its tokenizer.

    Parameters
    ----------
    origin : Origin
        What the user named.
    directory : Path
        Where its files are.
    config : transformers.PreTrainedConfig
        The network's configuration.
    recipe : Recipe or None
        What sentence-transformers does behind the network; None for a bare network.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        If there is no tokenizer, or parameters that the output needs are missing.
    """
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    recipe = recipe or Recipe(directory, pooling=("last",) if causal else ("mean",))
    tokenizer = _load_tokenizer(recipe.network)
    hidden_size = getattr(config, "hidden_size", None)
    if hidden_size is not None:
        check_widths(recipe, hidden_size)
    config.use_cache = False  # a single pass has no use for keys and values kept for a next token
    model, missing = load_pretrained(_model_class(config), recipe.network, config)
    network = _encoder_of(model)
    missing = _missing_in(network, model, missing)
    limit = position_limit(config)
    preparation = TextPreparation(
        tokenizer_of(tokenizer),
        max_length=_length(recipe, tokenizer, limit),
        limit=limit,
        prompt=recipe.default_prompt,
        prompts=recipe.prompts,
        pad_id=tokenizer.pad_token_id or 0,
        lower_case=recipe.lower_case,
        length_multiple=max(_as_list(getattr(config, "attention_window", 1))),
        accepts=accepted_arguments(network, ("input_ids", "attention_mask")),
    )
    network.eval()
    example = preparation.examples()[0]
    tensors = drop_unused(network, missing, lambda network: network(**example.kwargs)[0])
    readout = nn.Sequential(*recipe.readout) if recipe.readout else None
    if readout is not None:
        tensors = tensors | {f"readout.{name}": tensor for name, tensor in readout.state_dict().items()}
    pooling = recipe.pooling[0] if len(recipe.pooling) == 1 else recipe.pooling
    description = [
        type(network).__name__, describe(settings_of(config)), preparation.describe(), pooling, recipe.normalize,
        describe(readout) if readout is not None else None,
    ]  # fmt: skip
    return Backbone(
        card=_card(origin, network, config, recipe),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(tensors, description),
        origin=origin,
        pooling=pooling,
        layer_pooling=pooling,
        normalize=recipe.normalize,
        readout=readout,
    )


def _load_tokenizer(directory: Path) -> Any:
    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True, use_fast=True
            )
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # what is broken in a file ends tokenizers in a panic too, which is no Exception
            raise ValueError(
                f"There is no usable tokenizer in {str(directory)!r}: {error} "
                "Save it beside the network with tokenizer.save_pretrained(directory)."
            ) from error


def _model_class(config: Any) -> Any:
    """Choose between the whole network and, where only its encoder was saved, that alone."""
    only_encoder = any(name.endswith(_ENCODER_CLASSES) for name in config.architectures or ())
    return AutoModelForTextEncoding if only_encoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


def _encoder_of(model: Any) -> nn.Module:
    """Return the half that reads, where there is another one that writes, or was before the network was saved."""
    # The configuration doesn't tell: that of a saved LongT5EncoderModel says is_encoder_decoder=False, and AutoModel
    # makes a whole LongT5Model of it. Nor do the parts: Funnel has an encoder and a decoder, and reads with both.
    writes = "decoder_input_ids" in inspect.signature(model.forward).parameters
    return model.get_encoder() if writes or type(model).__name__.endswith(_ENCODER_CLASSES) else model


def _missing_in(network: nn.Module, model: nn.Module, missing: set[str]) -> set[str]:
    """Names of missing tensors as `network`, which may be the encoder half of `model`, calls them."""
    if network is model:
        return missing
    by_tensor = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    of_model = model.state_dict(keep_vars=True)
    return {by_tensor[id(of_model[name])] for name in missing if name in of_model and id(of_model[name]) in by_tensor}


def position_limit(config: Any) -> int | None:
    """Return how many tokens the network's position table has room for; None for any number."""
    places = getattr(config, "max_position_embeddings", None)
    if not isinstance(places, int) or places <= 0:
        return None
    if config.model_type in _OFFSET_POSITIONS:
        return places - (config.pad_token_id or 0) - 1
    return places


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _length(recipe: Recipe, tokenizer: Any, limit: int | None) -> int:
    known = [length for length in (recipe.max_length or tokenizer.model_max_length, limit) if length and length < 10**9]
    return min(known) if known else _DEFAULT_LENGTH


def _card(origin: Origin, network: nn.Module, config: Any, recipe: Recipe) -> Card:
    known = card_of(origin.name)
    if known is not None:
        return known
    out = [module.out_features for module in recipe.readout if isinstance(module, nn.Linear)]
    dimension = out[-1] if out else len(recipe.pooling) * config.hidden_size if hasattr(config, "hidden_size") else None
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Card(origin.name, "text", dimension, parameters, source=f"{type(network).__name__} of transformers")
