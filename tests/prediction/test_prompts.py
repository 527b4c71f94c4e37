"""`predict --points` and `--boxes`: the stock predictors' masks, and one line for every bad row."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from segment_anything import SamPredictor
from stock_models import stock_nano_sam
from weights_files import write_weights

from main import main
from model import load_model, load_models
from prediction.interaction import Prompt
from prediction.prompt_file import BoxRow, PointRow, PromptFile
from prediction.sources import Source
from utils.errors import UserError

# As long as the model's side, so that nothing is resized: two ways of resizing differ by grey values.
IMAGE = np.random.default_rng(0).integers(0, 255, (32, 24, 3), dtype=np.uint8)
CLICKS = [(5.0, 7.0, True), (20.5, 30.0, False), (11.0, 3.25, True)]
BOX = (3.0, 4.0, 17.5, 29.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A nano SAM of two labels, trained with points, whose adapters and prompt encoder have moved."""
    return write_weights(tmp_path_factory.mktemp("points"), "sam", ("Vein", "Disc"), ("prompts.type=points",))


@pytest.fixture
def predict(tmp_path, capsys):
    """A function (checkpoint, rows or text, option, more) -> exit status, output, errors; masks lie in masks/."""
    images = tmp_path / "images"
    (images / "left").mkdir(parents=True)
    for name in ("eye.png", "left/eye.png", "other.png"):
        Image.fromarray(IMAGE).save(images / name)

    def call(checkpoint, rows, option="--points", *more, suffix=".json"):
        path = tmp_path / f"prompts{suffix}"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        common = ["predict", "--checkpoint", str(checkpoint), "--images", str(images), "--output"]
        status = main([*common, str(tmp_path / "masks"), option, str(path), "--device", "cpu", *more])
        return status, *capsys.readouterr()

    return call


def point(image="eye.png", label="Vein", x=5.0, y=7.0, positive=True, **more):
    return {"image": image, "label": label, "x": x, "y": y, "positive": positive, **more}


def test_the_stock_predictor_gives_the_same_masks_of_an_exported_file(checkpoint, tmp_path):
    """Clicks one after another, each with the logits before, and a box."""
    exported = tmp_path / "exported.safetensors"
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(exported), "--format", "sam"]) == 0
    stock, ours = SamPredictor(stock_nano_sam(load_file(exported), 32)), load_model(checkpoint)
    stock.set_image(IMAGE)
    low_res = None
    for count in range(1, len(CLICKS) + 1):
        shown = CLICKS[:count]
        points, signs = np.array([click[:2] for click in shown]), np.array([int(click[2]) for click in shown])
        theirs, _, low_res = stock.predict(
            points, signs, mask_input=low_res, multimask_output=False, return_logits=True
        )
        found = ours.logits(IMAGE, ["Vein"], prompts={"Vein": Prompt(clicks=shown)})
        torch.testing.assert_close(found, torch.from_numpy(theirs), atol=1e-3, rtol=1e-3)
        assert 0 < (theirs > 0).mean() < 1
        assert np.array_equal(ours.predict(IMAGE, "Vein", prompt=Prompt(clicks=shown)), theirs[0] > 0)
    theirs, _, _ = stock.predict(box=np.array(BOX), multimask_output=False, return_logits=True)
    assert np.array_equal(ours.predict(IMAGE, "Disc", prompt=Prompt(boxes=[BOX])), theirs[0] > 0)


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_the_next_click_sees_the_mask_before_and_all_clicks(tmp_path, kind):
    predictor = load_model(write_weights(tmp_path, kind, overrides=("sam.mask_head=detail", "prompts.type=points")))
    shown = predictor.interaction(IMAGE)
    model, side = predictor.model, predictor.model.img_size
    scale = torch.tensor([side * 24 / 32 / 24, side / 32])
    with torch.no_grad():
        points = torch.tensor([[click[:2] for click in CLICKS[:2]]]) * scale
        signs = torch.tensor([[True, False]])
        _, low_res = model.decode_prompt(shown.embedded, model.point_tokens(points[:, :1], signs[:, :1]))
        tokens = model.point_tokens(points, signs)
        expected, _ = model.decode_prompt(shown.embedded, tokens, low_res)
        without_mask, _ = model.decode_prompt(shown.embedded, tokens)
    small = torch.nn.functional.interpolate(
        expected[:, None, :side, : side * 24 // 32], (32, 24), mode="bilinear", align_corners=False
    )[:, 0]
    torch.testing.assert_close(shown.logits(Prompt(CLICKS[:2]))[None], small)
    assert not torch.allclose(expected, without_mask, atol=1e-3)


def test_points_of_a_file_are_predicted_and_images_without_are_left_out(checkpoint, predict, tmp_path):
    text = "image,label,x,y,positive\n" + "".join(
        f"{image},Vein,{x},{y},{sign}\n" for image in ("left/eye.png", "other") for x, y, sign in CLICKS
    )
    status, out, _ = predict(checkpoint, text, "--points", "--probabilities", "npy", suffix=".csv")
    assert (status, out.splitlines()[-1]) == (0, f"written: {tmp_path}/masks, 2 masks, 1 images without a row left out")
    predictor = load_model(checkpoint)
    logits = predictor.logits(IMAGE, prompts={"Vein": Prompt(CLICKS)})
    assert (logits[1] == logits[1].min()).all()  # no prompt shows Disc
    found = np.load(tmp_path / "masks" / "probabilities" / "left" / "eye.npy")
    assert np.array_equal(found, torch.sigmoid(logits).numpy())
    assert found[1].max() == 0
    mask = np.array(Image.open(tmp_path / "masks" / "other.png"))
    assert np.array_equal(mask == 3, logits[0].numpy() > 0)
    assert not (tmp_path / "masks" / "eye.png").exists()
    again = predict(checkpoint, text, "--points", "--probabilities", "npy", "--skip_existing", suffix=".csv")
    assert again[1].splitlines()[-1] == f"written: {tmp_path}/masks, 0 masks, 2 kept, 1 images without a row left out"


def test_several_boxes_of_a_label_are_joined(checkpoint, predict, tmp_path):
    other = (10.0, 1.0, 23.0, 8.0)
    rows = [dict(zip(("x0", "y0", "x1", "y1"), box, strict=True), image="other", label="Vein") for box in (BOX, other)]
    assert predict(checkpoint, rows, "--boxes")[0] == 0
    predictor = load_model(checkpoint)
    masks = [predictor.predict(IMAGE, "Vein", prompt=Prompt(boxes=[box])) for box in (BOX, other)]
    found = np.array(Image.open(tmp_path / "masks" / "other.png")) == 3
    assert np.array_equal(found, masks[0] | masks[1])
    assert not np.array_equal(masks[0], masks[1])


BOX_ROW = {"image": "other", "label": "Vein", "x0": 3, "y0": 4, "x1": 9, "y1": 9}


@pytest.mark.parametrize(
    ("rows", "option", "message"),
    [
        ([point("other"), point("other", x="left")], "--points", "entry 2: x = 'left' should be a valid number"),
        ([point("other", y=None)], "--points", "entry 1: has no y"),
        ([{"image": "other", "label": "Vein", "x": 1, "y": 1}], "--points", "entry 1: has no positive"),
        ([point("other", positive="maybe")], "--points", "entry 1: positive = 'maybe' should be a valid boolean"),
        ([point("other", z=3)], "--points", "entry 1: has 'z', which is no column of this file"),
        ([point("other"), point("third.png")], "--points", "entry 2: image 'third.png' is not among --images"),
        ([point("eye.png")], "--points", "entry 1: image 'eye.png' is 2 images (eye, left/eye); write its folder"),
        ([point("other", "Vain")], "--points", "entry 1: label 'Vain' is not one of Vein, Disc"),
        ([point("other", x=24)], "--points", "entry 1: lies outside of other, which has 24 x 32 pixels"),
        ([point("other", x=float("nan"))], "--points", "entry 1: x = 'nan' should be a finite number"),
        ([{**BOX_ROW, "x1": 2}], "--boxes", "entry 1: x0, y0 must be the upper left corner"),
        ([{**BOX_ROW, "y1": 40}], "--boxes", "entry 1: lies outside of other, which has 24 x 32 pixels"),
        ([point("other")], "--boxes", "entry 1: has no x0"),
        ([3], "--points", "entry 1: is no object with the columns as keys"),
        ({}, "--points", "is not a JSON list of objects"),
        ([], "--points", "holds no row"),
        ("[", "--points", "is no JSON (Expecting value"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, option, message):
    path = tmp_path / "prompts.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        prompts_of_other(path, PointRow if option == "--points" else BoxRow)
    assert str(error.value).startswith(str(path))


def prompts_of_other(path, kind):
    sources = [Source(Path(f"{stem}.png"), Path(stem)) for stem in ("eye", "left/eye", "other")]
    return PromptFile.read(path, kind).of_sources(sources, ["Vein", "Disc"])[Path("other")].prompts((32, 24))


@pytest.mark.parametrize("rows", [[point("other", x="left")], [point("other", x=24)]])
def test_a_bad_row_is_one_line_and_no_mask(checkpoint, predict, tmp_path, rows):
    status, _, errors = predict(checkpoint, rows)
    assert status == 1
    assert len([line for line in errors.splitlines() if "prompts.json: entry 1: " in line]) == 1
    assert not list((tmp_path / "masks").rglob("*.png"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,x,y,positive\nother,Vein,1,2,1\nother,Vein,one,2,1\n", "line 3: x = 'one' should be"),
        ("image,label,x,y,positive\nother,Vein,1,2\n", "line 2: has no positive"),
        ("image,label,x,y,positive\nother,Vein,1,2,1,5\n", "line 2: has 'a further value'"),
        ("image,label,x,y,positive\n", "holds no row"),
    ],
)
def test_a_bad_line_of_a_csv_file_is_named(tmp_path, text, message):
    path = tmp_path / "prompts.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{path}: {message}")):
        PromptFile.read(path, PointRow)


def test_what_takes_no_prompts_says_so(checkpoint, make_weights, predict, sam_weights, capsys):
    rows = [point("other")]
    assert "leave out --tile and --tta" in predict(checkpoint, rows, "--points", "--tile")[2]
    assert "the model takes neither clicks nor boxes: it is no SAM" in predict(make_weights("unet"), rows)[2]
    native = make_weights("sam", ("Vein",), ("data_transforms.scale=native",))
    assert "which take no clicks and no boxes" in predict(native, rows)[2]
    assert predict(sam_weights, rows)[0] == 0  # trained with text; clicks in its place
    with pytest.raises(UserError, match="prompted by points: it needs clicks or boxes for this image"):
        load_model(checkpoint).predict(IMAGE, "Vein")
    with pytest.raises(ValueError, match="expected clicks or boxes"):
        Prompt()


def test_several_checkpoints_are_averaged_after_clicks(checkpoint, make_weights):
    paths = [checkpoint, make_weights("sam", ("Vein", "Disc"))]
    prompts = {"Vein": Prompt(CLICKS)}
    each = [torch.sigmoid(load_model(path).logits(IMAGE, ["Vein"], prompts=prompts)) for path in paths]
    together = torch.sigmoid(load_models(paths).logits(IMAGE, ["Vein"], prompts=prompts))
    torch.testing.assert_close(together, sum(each) / 2, atol=1e-5, rtol=1e-5)
