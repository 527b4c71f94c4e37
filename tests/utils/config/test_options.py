"""The named choices of the config against the tables and functions that use them."""

from typing import get_args

import pytest

import adapters
import adapters.ranks
import adapters.salt
from networks.baselines.build import BASELINES
from prompt_adapted_segment_anything.build import GEOMETRIES
from utils.config import options


@pytest.mark.parametrize(
    ("option", "own"),
    [
        (options.RLoraAboveRank, adapters.ranks.AboveRank),
        (options.RankChoice, adapters.ranks.RankChoice),
        (options.SaltInit, adapters.salt.SaltInit),
        (options.Relu, adapters.salt.Relu),
    ],
)
def test_the_adapters_options_are_those_of_adapters(option, own):
    assert get_args(option) == get_args(own)


def test_every_choice_is_built():
    assert set(get_args(options.BaselineArch)) == set(BASELINES)
    assert set(get_args(options.SamType)) == set(GEOMETRIES)


def test_architectures_are_sam_sam2_and_the_baselines():
    assert get_args(options.Architecture) == (options.SAM_ARCH, options.SAM2_ARCH, *options.BASELINE_ARCHS)


def test_every_adapter_method_is_a_strategy_and_an_adapter_type():
    assert {"biastuning", "decoder", "full", "none", *adapters.METHODS} < set(get_args(options.Strategy))
    assert get_args(options.AdapterType) == tuple(adapters.METHODS)
    assert {kind for kind in options.ADAPTER_TYPE.values() if kind} == set(adapters.METHODS)
