"""Prediction from the command line: masks of the images' own size, by label; and files of every unpleasant kind."""

import json
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.threshold import Threshold
from main import main
from model import load_model
from prediction.predictor import index_map
from utils.drawing import LEGEND_HEIGHT, label_colour

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)


def predict(checkpoint, images, out, *more):
    """Runs the command; returns its exit status."""
    arguments = ["--checkpoint", str(checkpoint), "--output", str(out), "--device", "cpu"]
    images = images if isinstance(images, list) else [images]
    return main(["predict", *arguments, "--images", *map(str, images), *more])


def noise(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def read(path):
    return np.asarray(Image.open(path))


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_largest_logit_wins_and_none_above_0_is_background():
    import torch

    logits = torch.tensor([[[1.0, -1.0, 3.0]], [[2.0, -2.0, 1.0]]])
    assert index_map(logits, [0, 4, 9]).tolist() == [[9, 0, 4]]
    assert index_map(logits, [7, 4, 9]).tolist() == [[9, 7, 4]]
    assert index_map(logits, [0, 4, 9], Threshold(1 / (1 + math.exp(-2.5)))).tolist() == [[0, 0, 4]]
    assert index_map(logits, [0, 4, 9]).dtype == np.uint8


def dice_of_files(masks, truths):
    overlap = sum_dice = 0
    for name in truths:
        p, t = read(masks / name.name) > 0, read(name) > 0
        overlap = 2 * (p & t).sum()
        sum_dice += overlap / (p.sum() + t.sum()) if (p.sum() + t.sum()) else 1.0
    return sum_dice / len(truths)


@pytest.mark.parametrize("arch", ["sam", "sam2"])
def test_the_masks_of_the_test_split_score_what_the_results_say(workspace, arch):
    """Odd sizes and a checkpoint from disk: the round trip from training to PNG files keeps every pixel."""
    more = ["--set", "arch=Prompt Adapted SAM 2", "sam.img_size=64", "ft.svd_ratio=0.2"] if arch == "sam2" else []
    assert main(workspace.train_arguments("run/m.safetensors", *more)) == 0
    results = json.loads((workspace.folder / "run" / "results.json").read_text())
    truths = sorted((workspace.data / "masks").glob("test*.png"))
    for weights, key in (("m", "last"), ("best_val", "best_val")):
        out = workspace.folder / weights
        images = f"{workspace.data}/images/test*.png"
        assert predict(workspace.folder / "run" / f"{weights}.safetensors", images, out) == 0
        assert {path.name for path in out.iterdir()} == {path.name for path in truths}
        assert dice_of_files(out, truths) == pytest.approx(results[key]["native"]["dice"]["mean"], abs=1e-6)


def test_masks_of_one_label_have_the_images_own_size(sam_weights, tmp_path):
    save(tmp_path / "in" / "a.jpg", noise(90, 50, 3))
    save(tmp_path / "in" / "deep" / "b.png", noise(20, 70, dtype=np.uint16))
    assert predict(sam_weights, tmp_path / "in", tmp_path / "out") == 0
    assert files_in(tmp_path / "out") == {"a.png", "deep/b.png"}
    for name, size in (("a.png", (90, 50)), ("deep/b.png", (20, 70))):
        mask = read(tmp_path / "out" / name)
        assert mask.shape == size
        assert set(np.unique(mask)) <= {0, 255}


def test_two_labels_are_one_map_of_their_values(make_weights, tmp_path):
    checkpoint = make_weights("sam", ("Vein", "Disc"))
    image = noise(30, 44, 3)
    save(tmp_path / "in" / "a.png", image)
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out", "--probabilities", "npy", "--overlay") == 0
    assert files_in(tmp_path / "out") == {"a.png", "probabilities/a.npy", "overlay/a.png"}
    mask = read(tmp_path / "out" / "a.png")
    assert set(np.unique(mask)) <= {0, 3, 6}
    predictor = load_model(checkpoint)
    assert np.array_equal(mask, predictor.predict_all(image))
    probabilities = np.load(tmp_path / "out" / "probabilities" / "a.npy")
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities[1], predictor.probabilities(image, "Disc"))
    with Image.open(tmp_path / "out" / "a.png") as shown:  # a viewer shows the labels' colours
        assert shown.mode == "P"
        colours = np.asarray(shown.convert("RGB"))
    for value, colour in {0: (0, 0, 0), 3: label_colour(0), 6: label_colour(1)}.items():
        assert (colours[mask == value] == colour).all()
    overlay = read(tmp_path / "out" / "overlay" / "a.png")
    assert overlay.shape == (30 + LEGEND_HEIGHT, 44, 3)
    assert overlay[30:].any()
    overlay = overlay[:30]
    assert (overlay[mask > 0] != image[mask > 0]).any(axis=1).all()


def test_probabilities_as_16_bit_pngs_and_the_mask_at_another_threshold(make_weights, tmp_path):
    checkpoint = make_weights("sam", ("Vein", "Disc"))
    image = noise(30, 44, 3)
    save(tmp_path / "in" / "a.png", image)
    more = ("--probabilities", "--threshold", "0.3", "--tta", "flips")
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out", *more) == 0
    assert files_in(tmp_path / "out") == {"a.png", "probabilities/a_Vein.png", "probabilities/a_Disc.png"}
    stored = Image.open(tmp_path / "out" / "probabilities" / "a_Vein.png")
    assert stored.mode == "I;16"
    predictor = load_model(checkpoint)
    expected = predictor.probabilities(image, "Vein", flips=True)
    assert np.abs(np.asarray(stored) / 65535 - expected).max() <= 0.51 / 65535
    assert np.array_equal(read(tmp_path / "out" / "a.png"), predictor.predict_all(image, 0.3, flips=True))


def test_tiles_from_the_command_line(sam_weights, tmp_path):
    image = noise(80, 100, 3)
    save(tmp_path / "in" / "a.png", image)
    assert predict(sam_weights, tmp_path / "in", tmp_path / "out", "--tile") == 0
    expected = load_model(sam_weights).predict(image, "Vein", tile=True)
    assert np.array_equal(read(tmp_path / "out" / "a.png") > 0, expected)


def test_what_is_there_is_kept_and_the_rest_done(sam_weights, tmp_path, capsys):
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.png", noise(20, 20, 3))
    out = tmp_path / "out"
    assert predict(sam_weights, tmp_path / "in", out) == 0
    other = (out / "b.png").read_bytes()
    (out / "a.png").write_bytes(other + b" ")
    (out / "b.png").unlink()
    capsys.readouterr()
    assert predict(sam_weights, tmp_path / "in", out, "--skip_existing") == 0
    assert "1 masks, 1 kept" in capsys.readouterr().out
    assert (out / "a.png").read_bytes() == other + b" "
    assert read(out / "b.png").shape == (20, 20)
    assert predict(sam_weights, tmp_path / "in", out, "--skip_existing", "--overlay") == 0  # overlays are missing
    assert (out / "a.png").read_bytes() != other + b" "
    assert files_in(out) == {"a.png", "b.png", "overlay/a.png", "overlay/b.png"}


def png_header(path, width, height):
    """A PNG of `width` x `height` white pixels, 1 bit each: small on disk."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_hostile_files(sam_weights, tmp_path, capsys):
    """Each is predicted or named in one line; none stops the others."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no image\n")
    png_header(folder / "huge.png", 20_000, 20_000)
    png_header(folder / "large.png", 10_000, 9_000)
    whole = save(folder / "truncated.tif", noise(50, 50, 3)).read_bytes()
    (folder / "truncated.tif").write_bytes(whole[:-4000])
    save(folder / "one_pixel.png", noise(1, 1, 3))
    save(folder / "line.png", noise(1, 700))
    cmyk = Image.fromarray(noise(30, 20, 3)).convert("CMYK")
    cmyk.save(folder / "cmyk.jpg")
    frames = [Image.fromarray(noise(25, 35)) for _ in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    (folder / "loop.png").symlink_to("loop.png")
    long = "x" * 245
    save(folder / f"{long}.png", noise(9, 9))
    assert predict(sam_weights, folder, out) == 1
    error = capsys.readouterr().err
    failed = [line for line in error.splitlines() if line.startswith("failed: ")]
    for name, why in {
        "empty.png": "not a readable image",
        "text.png": "not a readable image",
        "huge.png": "over the limit of 80000000",
        "large.png": "10000 x 9000 pixels, over the limit of 80000000",
        "truncated.tif": "not a readable image",
    }.items():
        assert sum(name in line and why in line for line in failed) == 1, name
    assert len(failed) == 5
    assert error.splitlines()[-1] == "error: 5 of 10 files could not be predicted, listed above"
    assert "Traceback" not in error
    assert read(out / f"{long}.png").shape == (9, 9)
    (out / f"{long}.png").unlink()
    assert files_in(out) == {"one_pixel.png", "line.png", "cmyk.png", "animated.png"}
    shapes = {path.name: read(path).shape for path in out.iterdir()}
    assert shapes == {"one_pixel.png": (1, 1), "line.png": (1, 700), "cmyk.png": (30, 20), "animated.png": (25, 35)}
    predictor = load_model(sam_weights)
    first = np.asarray(Image.open(folder / "animated.gif").convert("RGB"))
    assert np.array_equal(read(out / "animated.png") > 0, predictor.predict(first, "Vein"))
    rgb = np.asarray(Image.open(folder / "cmyk.jpg").convert("RGB"))
    assert np.array_equal(read(out / "cmyk.png") > 0, predictor.predict(rgb, "Vein"))


def test_no_single_file_ends_a_prediction(sam_weights, tmp_path, capsys):
    """A mask's name that the file system does not take, a loop of links, and DICOM files with impossible headers."""
    pytest.importorskip("pydicom", reason="the optional package pydicom is not installed")
    from dicom_files import write_dicom

    good, out = save(tmp_path / "in" / "good.png", noise(9, 9)), tmp_path / "out"
    bare = tmp_path / "in" / ("y" * 253)
    bare.write_bytes(write_dicom(tmp_path / "d.dcm").read_bytes())  # its mask would be of 257 letters
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    many = write_dicom(tmp_path / "in" / "many.dcm", NumberOfFrames=100_000_000)
    words = write_dicom(tmp_path / "in" / "words.dcm", NumberOfFrames=12345)
    words.write_bytes(words.read_bytes().replace(b"12345 ", b"abcde "))
    slope = write_dicom(tmp_path / "in" / "slope.dcm", RescaleSlope="1.0", RescaleIntercept="0")
    slope.write_bytes(slope.read_bytes().replace(b"1.0 ", b"NaN "))
    assert predict(sam_weights, [bare, tmp_path / "in" / "loop.png", many, words, slope, good], out) == 1
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 5
    for path, why in {
        bare: "File name too long",
        tmp_path / "in" / "loop.png": "no such file",
        many: "promises 100000000 frames, and 1 to 100000 are read",
        words: "its number of frames is no number",
        slope: "its rescale or window gives values that are not finite",
    }.items():
        assert sum(line.startswith(f"failed: {path}: ") and why in line for line in failed) == 1, (why, failed)
    assert files_in(out) == {"good.png"}


def test_a_missing_file_is_named(sam_weights, tmp_path, capsys):
    assert predict(sam_weights, tmp_path / "absent.png", tmp_path / "out") == 1
    assert f"failed: {tmp_path / 'absent.png'}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--threshold", "1.5"], "must be a number between 0 and 1, not '1.5'"),
        (["--tile_overlap", "1"], "must be a number from 0 up to, but not, 1"),
        (["--probabilities", "jpg"], "--probabilities"),
    ],
)
def test_bad_options_are_named(sam_weights, tmp_path, capsys, more, message):
    assert predict(sam_weights, tmp_path, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


def test_images_whose_masks_would_have_one_name_are_refused(sam_weights, tmp_path, capsys):
    for suffix in ("png", "bmp"):
        save(tmp_path / "in" / f"a.{suffix}", noise(20, 20, 3))
    assert predict(sam_weights, tmp_path / "in", tmp_path / "out") == 1
    assert "both masks would be" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_images_never_write_one_file(sam_weights, tmp_path, capsys):
    """The overlay of a.png and the mask of overlay/a.png have one path."""
    for name in ("a.png", "overlay/a.png"):
        save(tmp_path / "in" / name, noise(20, 20, 3))
    assert predict(sam_weights, tmp_path / "in", tmp_path / "out", "--overlay") == 1
    error = capsys.readouterr().err
    assert "overlay/a.png: its " in error
    assert f"out/overlay/a.png is that of {tmp_path / 'in' / 'a.png'} already; rename one" in error
    assert files_in(tmp_path / "out") == {"a.png", "overlay/a.png"}
    assert read(tmp_path / "out" / "overlay" / "a.png").ndim == 3
    assert predict(sam_weights, tmp_path / "in", tmp_path / "out", "--overlay", "--skip_existing") == 1
    assert "already; rename one" in capsys.readouterr().err
    assert read(tmp_path / "out" / "overlay" / "a.png").ndim == 3


def test_frames_of_a_dicom_file(make_weights, tmp_path, capsys):
    pytest.importorskip("pydicom", reason="the optional package pydicom is not installed")
    from dicom_files import write_dicom

    frames = noise(3, 40, 30, dtype=np.uint16) // 16
    (tmp_path / "in").mkdir()
    write_dicom(tmp_path / "in" / "angio.dcm", frames)
    write_dicom(tmp_path / "in" / "IM0001", frames[0])
    window = ("data_transforms.a_min=0", "data_transforms.a_max=255")
    checkpoint, out = make_weights("sam", ("Vein",), window), tmp_path / "out"
    assert predict(checkpoint, tmp_path / "in", out) == 0
    masks = {f"angio_frame_000{i}.png" for i in (1, 2, 3)}
    assert files_in(out) == masks | {"IM0001.png"}
    assert np.array_equal(read(out / "IM0001.png"), read(out / "angio_frame_0001.png"))
    as_png = save(tmp_path / "png" / "a.png", np.rint(frames[1] * (255 / 4095)).astype(np.uint8))
    assert predict(checkpoint, as_png, out) == 0
    assert (read(out / "a.png") == read(out / "angio_frame_0002.png")).mean() > 0.98  # but for 8 bits' rounding
    capsys.readouterr()
    assert predict(checkpoint, tmp_path / "in", out, "--skip_existing") == 0
    assert "0 masks, 4 kept" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_images(sam_weights, tmp_path):
    """The peak of 40 images is that of 8, in processes of their own."""
    for i in range(40):
        save(tmp_path / "in" / f"{i:02d}.png", noise(700, 700, 3))
    script = (
        "import sys; from main import main; status = main(sys.argv[1:]);"
        "print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1]); sys.exit(status)"
    )
    peaks = []
    for images in (f"{tmp_path}/in/0[0-7].png", f"{tmp_path}/in/*.png"):
        out = tmp_path / f"out{len(peaks)}"
        arguments = ["predict", "--checkpoint", str(sam_weights), "--images", images, "--output", str(out)]
        command = [sys.executable, "-c", script, *arguments, "--device", "cpu", "--overlay", "--probabilities"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
        assert len(list(out.glob("*.png"))) == (40 if len(peaks) == 2 else 8)
    assert peaks[1] < peaks[0] + 60  # MB; 32 images and their logits would take 250


def test_a_sixteen_bit_image_that_the_window_would_turn_white_is_named(workspace, capsys):
    text = workspace.data_config.read_text().replace("{use_rotation", "{a_min: 0, a_max: 255, use_rotation")
    workspace.data_config.write_text(text)
    assert main(workspace.train_arguments()) == 0
    images = workspace.data / "images"
    save(images / "deep.png", np.full((20, 30), 40_000, np.uint16))
    assert predict(workspace.folder / "run" / "model.safetensors", images, workspace.folder / "out") == 1
    error = capsys.readouterr().err
    assert "deep.png: data_transforms: a_max (255) would turn 100% of this 16-bit image white" in error
    assert (workspace.folder / "out" / "train0.png").is_file()
