"""Which files are predicted, and under which names."""

from pathlib import Path

import numpy as np
import pytest

from datasets.dicom import WHITE
from prediction.sources import find_sources, in_units_of
from utils.errors import UserError


class Window:
    def __init__(self, a_min, a_max):
        self.a_min, self.a_max = a_min, a_max


@pytest.fixture
def files(tmp_path):
    """a.png, sub/b.JPG, sub/deep/c.tif, other files, and an earlier output in the folder itself."""
    folder = tmp_path / "in"
    for name in ("a.png", "sub/b.JPG", "sub/deep/c.tif", "notes.txt", ".hidden.png", ".git/d.png", "out/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def stems(sources):
    return [str(source.stem) for source in sources]


def test_a_folder_gives_its_images_and_not_the_masks_in_it(files):
    assert stems(find_sources([files], files / "out")) == ["a", "sub/b", "sub/deep/c"]


def test_patterns_keep_the_folders_behind_their_fixed_part(files):
    out = files / "out"
    assert stems(find_sources([f"{files}/**/*.tif"], out)) == ["sub/deep/c"]
    assert stems(find_sources([f"{files}/sub/*/*"], out)) == ["deep/c"]
    assert stems(find_sources([f"{files}/*.p?g", files / "sub"], out)) == ["a", "b", "deep/c"]
    with pytest.raises(UserError, match="matches no file"):
        find_sources([f"{files}/*.xyz"], out)


def test_a_single_file_may_have_any_name(files):
    assert stems(find_sources([files / "notes.txt", files / "a.png"], files / "out")) == ["notes.txt", "a"]


def test_a_file_named_twice_is_predicted_once(files):
    assert stems(find_sources([files / "a.png", files / "a.png"], files / "out")) == ["a"]


def test_masks_never_replace_images(files):
    with pytest.raises(UserError, match="is the images' own folder"):
        find_sources([files], files)
    with pytest.raises(UserError, match=r"a\.png would be replaced by its mask"):
        find_sources([files / "a.png"], files)


def test_dicom_files_without_a_suffix_are_known_by_their_first_bytes(files):
    (files / "IM.0001.2").write_bytes(bytes(128) + b"DICM")
    (files / "IM.0003").write_bytes(b"no")
    assert "IM.0001.2" in stems(find_sources([files], files / "out"))
    assert "IM.0003" not in stems(find_sources([files], files / "out"))


def test_dicoms_own_window_takes_the_place_of_the_checkpoints():
    frame = np.array([0, WHITE // 2, WHITE], np.uint16)
    assert in_units_of(Window(None, None), frame) is frame
    eight_bits = in_units_of(Window(0, 255), frame)
    assert eight_bits.dtype == np.float32
    assert eight_bits.tolist() == pytest.approx([0, 127.5, 255], abs=0.01)
    assert in_units_of(Window(-100, 300), frame).tolist() == pytest.approx([-100, 100, 300], abs=0.01)
    assert in_units_of(Window(1000, None), frame).tolist() == [1000, 33267, WHITE]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        find_sources([tmp_path], Path("out"))
