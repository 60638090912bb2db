"""The catalogue: cards that agree with the networks, and no torch needed to read them."""

import json
import subprocess
import sys
from importlib import resources

import pandas as pd
import pytest
import torchvision

from sktransfer.backbones.sources.catalogue import card_of, known_names, list_backbones

FAMILY = [
    "resnet18",
    "vgg11",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "swin_t",
    "vit_b_16",
    "efficientnet_b0",
    "densenet121",
]


def test_every_torchvision_classification_network_has_a_card():
    names = {card.name for card in list_backbones("image")}
    assert set(torchvision.models.list_models(module=torchvision.models)) <= names


@pytest.mark.parametrize("name", FAMILY)
def test_parameters_agree_with_what_torchvision_states(name):
    card = card_of(name)
    stated = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    # What torchvision counts has a last layer of 1,000 classes with a bias.
    assert card.parameters + 1000 * (card.dimension + 1) == stated


def test_networks_of_the_package_come_first_with_the_facts_of_their_folders():
    for name in ("image-resnet", "text-static"):
        file = resources.files("sktransfer").joinpath("weights", name, "card.json")
        if file.is_file():
            assert card_of(name).dimension == json.loads(file.read_text(encoding="utf-8"))["dimension"]
            assert name in known_names()[:2]


def test_modality_and_pattern_choose():
    assert {card.modality for card in list_backbones("text")} == {"text"}
    names = [card.name for card in list_backbones(pattern="*MiniLM*")]
    assert names == [card.name for card in list_backbones("text", pattern="*minilm*")]
    assert "sentence-transformers/all-MiniLM-L6-v2" in names
    assert {card.modality for card in list_backbones("series")} == {"series"}


def test_unknown_modality_lists_the_known_ones():
    with pytest.raises(ValueError, match="'text', 'image', 'table', 'series' or None. Got 'audio'"):
        list_backbones("audio")


def test_cards_make_a_table_without_gaps():
    table = pd.DataFrame(list_backbones())
    assert list(table.columns) == ["name", "modality", "dimension", "parameters", "licence", "source", "summary"]
    assert table["name"].is_unique
    # How many parameters an untrained network has is known when it is made for its rows.
    untrained = table["modality"].isin(["table", "series"])
    assert (table["parameters"].isna() == untrained).all()
    assert not table.drop(columns="parameters").isna().any(axis=None)
    assert (table["dimension"] > 0).all() and (table["parameters"][~untrained] > 0).all()


def test_weights_for_non_commercial_use_say_so():
    for name in torchvision.models.list_models(module=torchvision.models):
        swag = "SWAG" in torchvision.models.get_model_weights(name).DEFAULT.name
        assert ("NC" in card_of(name).licence) == swag


def test_name_that_is_not_listed_has_no_card():
    assert card_of("nobody/nothing") is None


def test_catalogue_is_read_without_importing_torch():
    code = (
        "import sys; from sktransfer.backbones.sources.catalogue import list_backbones; list_backbones(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
