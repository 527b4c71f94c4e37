"""Decompositions kept on disk: the same bits, only for their own weight, and never in the way."""

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpointing import svd_cache
from checkpointing.svd_cache import cached_decompose, svd_folder

SHAPE = (520, 256)  # large enough to be kept


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def computed(monkeypatch):
    """The weights that were really decomposed."""
    seen = []
    real = svd_cache.decompose
    monkeypatch.setattr(svd_cache, "decompose", lambda weight: seen.append(weight) or real(weight))
    return seen


def weight(seed=0, shape=SHAPE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def files():
    return sorted(svd_folder().iterdir()) if svd_folder().exists() else []


def same(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("U", "s", "Vh"))


def test_a_second_call_reads_the_same_bits(computed):
    first = cached_decompose(weight())
    second = cached_decompose(weight())
    assert same(first, second)
    assert len(computed) == len(files()) == 1


def test_another_weight_has_another_file(computed):
    one_number_off = weight()
    one_number_off[-1, -1] += 1e-6
    for each in (weight(), one_number_off, weight().double()):
        cached_decompose(each)
    assert len(computed) == len(files()) == 3


def test_a_small_weight_is_not_kept(computed):
    cached_decompose(weight(shape=(64, 64)))
    assert len(computed) == 1
    assert files() == []


def spoil_content(file):
    factors = load_file(file)
    factors["U"][0, 0] += 1
    save_file(factors, file)


def spoil_order(file):
    """Still U diag(s) Vh = W, but U is no orthonormal basis."""
    factors = load_file(file)
    save_file({"U": factors["U"] * 2, "s": factors["s"] / 2, "Vh": factors["Vh"]}, file)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-5000])


def take_another_weights_file(file):
    cached_decompose(weight(1))
    (other,) = set(files()) - {file}
    shutil.copy(other, file)


def drop_a_tensor(file):
    save_file({"U": load_file(file)["U"]}, file)


@pytest.mark.parametrize("spoil", [spoil_content, spoil_order, truncate, take_another_weights_file, drop_a_tensor])
def test_a_damaged_file_is_recomputed(spoil, computed, caplog):
    right = cached_decompose(weight())
    (file,) = files()
    spoil(file)
    computed.clear()
    with caplog.at_level(logging.WARNING):
        assert same(cached_decompose(weight()), right)
    assert len(computed) == 1
    assert f"{file}: " in caplog.text
    assert same(cached_decompose(weight()), right)
    assert len(computed) == 1


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch, computed, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        cached_decompose(weight())
    assert len(computed) == 1
    assert "cannot be saved" in caplog.text
