"""DICOM images come out as a viewer shows them; what cannot be read is one line that names the file."""

import numpy as np
import pytest
from dicom_files import RAMP, write_dicom

from datasets.dicom import frame_count, is_dicom, read_frames
from utils.errors import UserError

pydicom = pytest.importorskip("pydicom", reason="the optional package pydicom is not installed")


def grey(path):
    [frame] = read_frames(path)
    assert frame.dtype == np.uint16
    assert frame.shape == (4, 4, 3)
    assert (frame == frame[..., :1]).all()
    return frame[..., 0].astype(int)


def test_without_a_window_the_stored_bits_are_the_range(tmp_path):
    found = grey(write_dicom(tmp_path / "a.dcm"))
    assert np.array_equal(found, np.rint(RAMP.astype(float) * 65535 / 4095))


def test_a_window_is_applied_after_the_rescale(tmp_path):
    """DICOM PS3.3 C.11.2.1.2: with width 1025 and centre 1024.5, 512 is black and 1536 is white."""
    path = write_dicom(tmp_path / "a.dcm", WindowCenter=[1024.5, 3], WindowWidth=[1025, 4])
    found = dict(zip(RAMP.flatten().tolist(), grey(path).flatten().tolist(), strict=True))
    assert (found[512], found[1024], found[1536]) == (0, 32768, 65535)
    assert (found[256], found[2048]) == (0, 65535)
    shifted = write_dicom(tmp_path / "b.dcm", WindowCenter=2049, WindowWidth=2049, RescaleSlope=2, RescaleIntercept=0.5)
    assert grey(shifted)[1, 0] == 32768  # 2 x 1024 + 0.5 is the middle of 1024.5 .. 3072.5 less half a step


@pytest.mark.parametrize(
    ("function", "at_edge"), [("LINEAR_EXACT", 65535), ("SIGMOID", round(65535 / (1 + np.exp(-2))))]
)
def test_other_window_functions(tmp_path, function, at_edge):
    path = write_dicom(tmp_path / "a.dcm", WindowCenter=1024, WindowWidth=1024, VOILUTFunction=function)
    found = grey(path).flatten()
    assert found[4] == 32768
    assert found[6] == at_edge


def test_monochrome1_is_inverted(tmp_path):
    plain = grey(write_dicom(tmp_path / "a.dcm"))
    assert np.array_equal(grey(write_dicom(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")), 65535 - plain)


def test_frames_come_one_at_a_time_in_order(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.stack([RAMP, RAMP[::-1], RAMP.T]))
    assert frame_count(path) == 3
    first, second, third = (frame[..., 0] for frame in read_frames(path))
    assert np.array_equal(second, first[::-1])
    assert np.array_equal(third, first.T)


def test_a_file_is_known_by_suffix_or_first_bytes(tmp_path):
    written = write_dicom(tmp_path / "a.dcm")
    bare = tmp_path / "IM0001"
    bare.write_bytes(written.read_bytes())
    (tmp_path / "text").write_text("no")
    assert is_dicom(written)
    assert is_dicom(bare)
    assert not is_dicom(tmp_path / "text")
    assert not is_dicom(tmp_path / "absent")


def refusal(path):
    with pytest.raises(UserError) as caught:
        list(read_frames(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_cannot_be_read_is_named_in_one_line(tmp_path):
    path = tmp_path / "a.dcm"
    assert "no such file" in refusal(path)
    path.write_bytes(b"")
    assert "not a readable DICOM file" in refusal(path)
    path.write_bytes(b"text " * 100)
    assert "not a readable DICOM file" in refusal(path)
    whole = write_dicom(path).read_bytes()
    path.write_bytes(whole[:-10])
    assert "not a readable DICOM image" in refusal(path)
    write_dicom(path, PhotometricInterpretation="RGB", SamplesPerPixel=3)
    assert "of kind RGB; only grey ones are read" in refusal(path)
    write_dicom(path, Rows=40_000, Columns=40_000)
    assert "over the limit" in refusal(path)


def test_pixels_compressed_beyond_the_installed_decoders_name_what_to_install(tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLosslessSV1

    if get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of lossless JPEG is installed")
    path = tmp_path / "a.dcm"
    write_dicom(path, syntax=JPEGLosslessSV1, PixelData=encapsulate([b"\xff\xd8 no JPEG \xff\xd9"]))
    assert "pip install pylibjpeg" in refusal(path)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    message = refusal(path)
    assert "pip install pydicom" in message
    assert "requirements-extras.txt" in message


@pytest.mark.parametrize(("count", "shown"), [(-3, "-3"), (10**8, "100000000")])
def test_an_impossible_number_of_frames_is_refused_at_once(tmp_path, count, shown):
    path = write_dicom(tmp_path / "a.dcm", NumberOfFrames=count)
    with pytest.raises(UserError, match=f"a.dcm: promises {shown} frames, and 1 to 100000 are read; replace the file"):
        frame_count(path)
