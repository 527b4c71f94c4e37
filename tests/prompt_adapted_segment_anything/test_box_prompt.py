"""A box prompt on an untouched SAM gives what segment_anything's SamPredictor gives, from the same file."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam

from data_transforms.data_transforms import Data_Transform, to_native
from evaluation.prompts import prompt_boxes
from main import main
from model import build_model
from prompt_adapted_segment_anything import GEOMETRIES, build_mask_decoder, build_prompt_encoder
from utils.config import load_config

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def with_random_positions(sam):
    """SAM starts with zeros where its trained weights have positions."""
    torch.manual_seed(1)
    for name, parameter in sam.named_parameters():
        if "pos_embed" in name or "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return sam.eval()


def stock_nano(img_size):
    geometry = GEOMETRIES["nano"]
    encoder = ImageEncoderViT(
        img_size=img_size, patch_size=8, embed_dim=128, depth=4, num_heads=4, out_chans=128, window_size=8,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, global_attn_indexes=(2,),
    )  # fmt: skip
    parts = build_prompt_encoder(geometry, img_size), build_mask_decoder(geometry)
    return Sam(encoder, *parts, pixel_mean=MEAN, pixel_std=STD)


@pytest.mark.parametrize(
    ("sam_type", "img_size", "shape"),
    [
        ("nano", 128, (128, 96)),
        ("nano", 128, (70, 128)),
        pytest.param("base", 1024, (1024, 768), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("box", [(10, 20, 60, 50), (0, 0, 95, 69)])
def test_logits_equal_the_stock_predictors(tmp_path, sam_type, img_size, shape, box):
    torch.manual_seed(0)
    stock = with_random_positions(sam_model_registry["vit_b"]() if sam_type == "base" else stock_nano(img_size))
    torch.save(stock.state_dict(), tmp_path / "sam.pth")
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    predictor = SamPredictor(stock)
    predictor.set_image(image)
    expected, _, _ = predictor.predict(box=np.array(box), multimask_output=False, return_logits=True)

    (tmp_path / "m.yaml").write_text(
        f"sam: {{sam_type: {sam_type}, img_size: {img_size}}}\nprompts: {{type: box_full}}\n"
    )
    config = load_config(tmp_path / "m.yaml", None, (), "none", tmp_path / "sam.pth")
    model = build_model(config).eval()
    pixels, _, valid = Data_Transform(config.data_transforms, train=False)(image)
    with torch.no_grad():
        logits = model(pixels[None], ["any"], torch.tensor([box]).float())[0]
    ours = to_native(logits, valid, shape).numpy()
    assert np.abs(expected[0]).max() > 0.05
    np.testing.assert_allclose(ours, expected[0], atol=1e-3 * max(1, np.abs(expected).max()))


def batch():
    masks = torch.zeros(3, 40, 40)
    masks[0, 5:9, 10:31] = 1
    masks[1, 3, 3] = 1
    return {"mask": masks, "valid": (torch.tensor([40, 30, 40]), torch.tensor([40, 40, 20]))}


def test_boxes_of_a_batch():
    assert prompt_boxes("text", batch()) is None
    assert prompt_boxes("box_full", batch()).tolist() == [[0, 0, 39, 39], [0, 0, 39, 29], [0, 0, 19, 39]]
    oracle = [[10, 5, 30, 8], [3, 3, 3, 3], [0, 0, 19, 39]]  # the last one has an empty mask
    assert prompt_boxes("box_oracle", batch()).tolist() == oracle


@pytest.mark.parametrize("prompt", ["box_full", "box_oracle"])
def test_zero_shot_rows_name_their_prompt_and_need_no_text_encoder(workspace, prompt):
    arguments = workspace.train_arguments("run/m.safetensors", "--training_strategy", "none")
    overrides = ["--set", f"prompts.type={prompt}", "prompts.text_encoder=clip", "prompts.clip_path=nowhere.pt"]
    assert main([*arguments, *overrides]) == 0
    results = json.loads((workspace.folder / "run" / "results.json").read_text())
    assert (results["method"], results["prompt"], results["text_encoder"]) == ("none", prompt, None)
    assert results["last"]["native"]["n"] == 2


def test_the_two_boxes_give_different_masks(workspace):
    scores = []
    for prompt in ("box_full", "box_oracle"):
        save = f"{prompt}/m.safetensors"
        arguments = workspace.train_arguments(save, "--training_strategy", "none", "--set", f"prompts.type={prompt}")
        assert main(arguments) == 0
        scores.append((workspace.folder / prompt / "per_image.csv").read_text())
    assert scores[0] != scores[1]


def test_a_box_prompt_is_not_trained_with(workspace, capsys):
    assert main(workspace.train_arguments("run/m.safetensors", "--set", "prompts.type=box_full")) == 2
    assert "prompts.type = box_full is only for evaluation" in capsys.readouterr().err
