"""Mutated checkpoints, configs, tables and images through the real commands: no traceback, nothing takes 10 seconds.

`make fuzz` runs it for about a minute; `FUZZ_SECONDS=600 make fuzz` for longer. Examples are new in every run;
hypothesis prints how a failure is repeated.
"""

import contextlib
import io
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import weights_files
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from main import main
from tests.conftest import make_workspace_in

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
LIMIT = 10  # seconds a command may take
BASE = {"sam": {"img_size": 32, "sam_type": "nano", "weights": "random"}, "prompts": {"text_encoder": "learned"}}

# Bytes are replaced, removed, doubled or added in a few places, so that parsers get beyond the header.
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "remove", "double", "insert", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, mutations) -> bytes:
    """Content with some bytes changed."""
    for kind, place, length, new in mutations:
        at = int(place * len(content))
        head, part, tail = content[:at], content[at : at + length], content[at + length :]
        middle = {"replace": new, "remove": b"", "double": part + part, "insert": new + part, "cut": b""}[kind]
        content = head + middle + (b"" if kind == "cut" else tail)
    return content


def run_for(share, fuzz):
    """Calls a test with new examples for a share of the time."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    settings(max_examples=20, deadline=None, suppress_health_check=quiet, database=None, print_blob=True)(fuzz)
    end = time.monotonic() + share * SECONDS
    while time.monotonic() < end:
        fuzz()


def survives(*arguments):
    """Runs a command: it must end in time, by itself, with a status of its own and at most one line of an error."""

    def hang(*_):
        raise AssertionError(f"{arguments[0]} took more than {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = main([str(argument) for argument in arguments])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
    assert status in (0, 1, 2)
    assert len(lines) == (status != 0), errors.getvalue()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_workspace_in(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The content of a checkpoint in each format, by suffix."""
    path = weights_files.write_weights(tmp_path_factory.mktemp("checkpoint"))
    from checkpointing.weights_file import read_weights, save_weights

    weights = read_weights(path)
    save_weights(path.with_suffix(".pth"), weights.tensors, weights.metadata)
    return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".safetensors", ".pth")}


# Headers and metadata are at the ends of these files; what lies between are numbers.
AT_ENDS = st.floats(0, 0.03) | st.floats(0.97, 1, exclude_max=True) | st.floats(0, 1, exclude_max=True)


def test_checkpoints(checkpoints, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")

    @given(suffix=st.sampled_from([".safetensors", ".pth"]), mutations=MUTATIONS, place=AT_ENDS)
    def fuzz(suffix, mutations, place):
        kind, _, *rest = mutations[0]
        path = tmp_path / f"m{suffix}"
        path.write_bytes(mutated(checkpoints[suffix], [(kind, place, *rest), *mutations[1:]]))
        survives("predict", "--checkpoint", path, "--images", tmp_path / "a.png", "--output", tmp_path / "out")
        survives("export", "--force", "--checkpoint", path, "--output", tmp_path / "e.safetensors")

    run_for(0.3, fuzz)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 10**30, 1e30, "", "~", "/../x", "1e-4", "\0", "a" * 300, "$x", [], {}])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


def keys_of(schema, prefix=()):
    """The path of every key of a config."""
    from pydantic import BaseModel

    from utils.config.errors import _plain

    for name, field in schema.model_fields.items():
        kind = _plain(field.annotation)
        yield (*prefix, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, (*prefix, name))


def test_configs(workspace, tmp_path):
    from utils.config.config import Config

    path = tmp_path / "m.yaml"
    keys = list(keys_of(Config))

    @given(changes=st.lists(st.tuples(st.sampled_from(keys), VALUES), max_size=3), mutations=MUTATIONS | st.just([]))
    def fuzz(changes, mutations):
        content = yaml.safe_load(yaml.safe_dump(BASE))
        for path_of_key, value in changes:
            _set(content, path_of_key, value)
        if not _is_small(content):
            return
        text = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "replace")
        path.write_bytes(mutated(text, mutations))
        survives("params", "--model_config", path)
        survives("check", "--data_config", path, "--output", tmp_path / "sheet.png")

    run_for(0.2, fuzz)


def _set(content, path, value):
    for part in path[:-1]:
        if not isinstance(content.get(part), dict):
            content[part] = {}
        content = content[part]
    content[path[-1]] = value


def _is_small(content):
    """A larger model is no hang, but takes its time."""
    sam = content.get("sam")
    return (
        isinstance(sam, dict) and sam.get("sam_type") == "nano" and sam.get("img_size") == 32 and "arch" not in content
    )


def test_tables(workspace, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(workspace.data, root)
    config, table = tmp_path / "data.yaml", root / "data_split.csv"
    config.write_text(workspace.data_config.read_text().replace(str(workspace.data), str(root)))
    content = table.read_bytes().replace(b"imgs,split", b"imgs,split,fold,group").replace(b",train", b",train,0,a")

    @given(mutations=MUTATIONS, fold=st.integers(0, 2))
    def fuzz(mutations, fold):
        table.write_bytes(mutated(content, mutations))
        survives("check", "--data_config", config, "--output", tmp_path / "sheet.png")

    run_for(0.2, fuzz)


def test_images(checkpoints, tmp_path):
    checkpoint, folder = tmp_path / "m.safetensors", tmp_path / "in"
    checkpoint.write_bytes(checkpoints[".safetensors"])
    folder.mkdir()
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (12, 14), dtype=np.uint8), rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
    files = {}
    for name, pixels in (("a.png", grey), ("b.jpg", colour), ("c.tif", colour), ("d.gif", grey), ("e.bmp", colour)):
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(grey.astype(np.uint16) * 200).save(folder / "f.png")
    Image.fromarray(colour).save(folder / "g.ppm")
    with contextlib.suppress(ImportError):
        from dicom_files import write_dicom

        write_dicom(folder / "h.dcm", RescaleSlope="1.5", RescaleIntercept="0", WindowCenter="300", WindowWidth="600")
    for path in sorted(folder.iterdir()):
        files[path.name] = path.read_bytes()
        path.unlink()

    @given(mutations=st.lists(MUTATIONS, min_size=len(files), max_size=len(files)))
    def fuzz(mutations):
        for (name, content), changes in zip(files.items(), mutations, strict=True):
            Path(folder / name).write_bytes(mutated(content, changes))
        survives("predict", "--checkpoint", checkpoint, "--images", folder, "--output", tmp_path / "out")

    run_for(0.3, fuzz)
