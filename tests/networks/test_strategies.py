"""What each strategy trains and how it is counted, on a model of one parameter per group."""

import pytest
import torch
from torch import nn

import adapters
from networks.base import SegmentationModel
from networks.strategies import apply_strategy, parameter_counts

# Parameters of FakeModel: names, and numbers of elements.
SIZES = {
    "image_encoder.norm": 2,
    "image_encoder.rel_pos": 3,
    "image_encoder.bias": 5,
    "image_encoder.layer.weight": 6,
    "image_encoder.layer.bias": 2,
    "mask_decoder.used": 7,
    "mask_decoder.unused": 11,
    "text.affine": 13,
}
TRAINED = {
    "none": set(),
    "full": set(SIZES) - {"mask_decoder.unused"},
    "decoder": {"mask_decoder.used", "text.affine"},
    "biastuning": {"image_encoder.norm", "text.affine", "image_encoder.bias", "image_encoder.layer.bias"},
    "lora": {"image_encoder.norm", "text.affine"},
}


class Part(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(size)))


class FakeModel(SegmentationModel):
    def __init__(self):
        super().__init__()
        self.image_encoder = Part(norm=2, rel_pos=3, bias=5)
        self.image_encoder.layer = nn.Linear(3, 2)
        self.mask_decoder = Part(used=7, unused=11)
        self.text = Part(affine=13)
        self.text.frozen_parameters = 1000

    def always_trained(self):
        yield from (self.image_encoder.norm, self.text.affine)

    def encoder_biases(self):
        yield from (self.image_encoder.bias, self.image_encoder.layer.bias)

    def decoder_parameters(self):
        yield self.mask_decoder.used

    def prompt_parameters(self):
        yield self.text.affine

    def uncounted_parameters(self):
        yield self.image_encoder.rel_pos

    def all_used_parameters(self):
        yield from (p for name, p in self.named_parameters() if name != "mask_decoder.unused")


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("strategy", TRAINED)
def test_a_strategy_trains_its_groups_and_nothing_else(strategy):
    model = FakeModel()
    apply_strategy(model, strategy)
    assert trained(model) == TRAINED[strategy]
    apply_strategy(model, "none")
    assert trained(model) == set()


@pytest.mark.parametrize(("strategy", "more"), [("lora", set()), ("svdbiastuning", {"image_encoder.bias"})])
def test_adapters_train_with_every_strategy_that_has_them(strategy, more):
    model = FakeModel()
    adapters.inject(model, "lora", ["image_encoder.layer"], adapters.RankRule(r_lora=1))
    apply_strategy(model, strategy)
    of_adapters = {"image_encoder.layer.up", "image_encoder.layer.down"}
    assert trained(model) >= TRAINED["lora"] | of_adapters | more
    assert "image_encoder.layer.weight" not in trained(model)


def test_decoder_training_adds_the_used_part_of_the_decoder():
    model = FakeModel()
    apply_strategy(model, "lora", decoder_training=True)
    assert trained(model) == TRAINED["lora"] | {"mask_decoder.used"}


@pytest.mark.parametrize(("strategy", "uncounted"), [("lora", 3), ("full", 0)])
def test_counts_include_clip_and_omit_what_the_paper_omits_while_it_is_frozen(strategy, uncounted):
    model = FakeModel()
    apply_strategy(model, strategy)
    trainable = sum(SIZES[name] for name in TRAINED[strategy])
    total = sum(SIZES.values()) + 1000 - uncounted
    counts = parameter_counts(model)
    assert (counts["trainable"], counts["total"]) == (trainable, total)
    assert counts["percent"] == pytest.approx(100 * trainable / total)
    assert counts["modules"]["text"] == {"trainable": 13, "total": 1013}
    assert counts["modules"]["mask_decoder"]["total"] == 18


@pytest.mark.parametrize("strategy", ["salt", "full"])
def test_parameters_of_the_model_itself_are_counted(strategy, make_weights):
    """SAM2's embedding of an absent memory lies in no module."""
    from model import load_trained

    model, _ = load_trained(make_weights("sam2"))
    apply_strategy(model, strategy)
    counts, size = parameter_counts(model), model.no_mem_embed.numel()
    assert counts["modules"]["others"] == {"trainable": size if strategy == "full" else 0, "total": size}
    assert counts["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
