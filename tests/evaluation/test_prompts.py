"""Prompts drawn from the truth: where an ideal user clicks, and what the model is then shown."""

import numpy as np
import pytest
import torch
from weights_files import write_weights

from evaluation.prompts import central_click, click_rounds, prompted_logits
from model import load_trained


def region(*slices, size=(20, 30)):
    mask = np.zeros(size, bool)
    for rows, columns in slices:
        mask[slice(*rows), slice(*columns)] = True
    return mask


def test_the_click_is_farthest_from_its_regions_boundary():
    small, large, none = region(((2, 5), (3, 6))), region(((8, 17), (10, 19))), region()
    assert central_click(small, none) == central_click(none, small) == (3, 4)
    assert central_click(small | large, none) == (12, 14)
    assert central_click(small, large) == central_click(large, small) == (12, 14)


def test_the_images_border_and_the_other_region_are_boundaries():
    assert central_click(region(((0, 20), (0, 30))), region()) == (9, 9)  # the first of the middle row's
    assert central_click(region(((5, 10), (0, 5))), region(((5, 10), (5, 10)))) == (7, 2)


class Clicked:
    """A model that predicts the given masks, one after another, and keeps what it is shown."""

    def __init__(self, *predictions):
        self.predictions, self.clicks = list(predictions), len(predictions)
        self.shown = []

    def point_tokens(self, points, positive):
        return points, positive

    def decode_prompt(self, embedded, tokens, low_res):
        prediction = self.predictions[len(self.shown)]
        mask = None if low_res is None else f"mask {int(low_res)}"
        self.shown.append((tokens[0][0].tolist(), tokens[1][0].tolist(), mask))
        return torch.tensor(prediction)[None] * 2.0 - 1, torch.tensor(len(self.shown))


def clicks_of(truth, *predictions, valid=None):
    model = Clicked(*predictions)
    sizes = valid and [torch.tensor([side]) for side in valid]
    assert len(list(click_rounds(model, None, torch.tensor(truth)[None].float(), central_click, sizes))) == model.clicks
    return model.shown


def test_clicks_go_to_the_truth_then_to_the_errors_and_come_with_those_before_and_the_mask_before():
    truth, false = region(((2, 9), (2, 9))), region(((10, 19), (20, 29)))
    shown = clicks_of(truth, region(), false, truth)
    assert shown[0] == ([[5, 5]], [True], None)
    assert shown[1] == ([[5, 5], [5, 5]], [True, True], "mask 1")
    assert shown[2] == ([[5, 5], [5, 5], [24, 14]], [True, True, False], "mask 2")


def test_where_nothing_is_wrong_the_click_confirms():
    truth = region(((2, 9), (2, 9)))
    assert clicks_of(truth, truth, truth)[1][:2] == ([[5, 5], [5, 5]], [True, True])
    assert clicks_of(region(), region())[0][:2] == ([[9, 9]], [False])


def test_padding_is_not_clicked():
    truth, padded = region(((2, 5), (2, 5))), region(((10, 20), (0, 30)))
    shown = clicks_of(truth, truth | padded, truth, valid=(10, 30))
    assert shown[1][:2] == ([[3, 3], [3, 3]], [True, True])


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_an_evaluation_repeats_itself_whatever_the_batch(tmp_path, kind):
    model, _ = load_trained(write_weights(tmp_path, kind, overrides=("prompts.type=points",)))
    side = model.img_size
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(3, side, side)
    masks[0, 5:20, 5:9] = masks[1, 1:9, 7:31] = 1
    batch = {
        "image": torch.randn(3, 3, side, side, generator=generator),
        "mask": masks,
        "label": ["Vein"] * 3,
        "valid": (torch.tensor([side, side - 9, side]), torch.tensor([side] * 3)),
    }
    with torch.no_grad():
        whole = prompted_logits(model, batch, torch.device("cpu"))
        torch.rand(7)
        assert torch.equal(prompted_logits(model, batch, torch.device("cpu")), whole)
        for i in range(3):
            one = {key: value[i : i + 1] for key, value in batch.items() if key != "valid"}
            one["valid"] = [sides[i : i + 1] for sides in batch["valid"]]
            alone = prompted_logits(model, one, torch.device("cpu"))[0]
            torch.testing.assert_close(alone, whole[i], atol=1e-4, rtol=1e-4)
        model.clicks = 1
        assert not torch.allclose(prompted_logits(model, batch, torch.device("cpu")), whole, atol=1e-3)
