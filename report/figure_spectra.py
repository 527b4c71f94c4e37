"""Singular values of adapted layers before and after training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adapters import adapted_layers
from adapters.spectral import SpectralLayer
from model import load_trained
from report.drawing import COLOURS, PAGE_WIDTH, Drawn, figure, save
from report.gather import Run
from report.table import Table
from training.run_folder import RunFolder
from utils.config.options import Weights
from utils.errors import UserError

LAYER_NAME = "attn.qkv"  # the layers shown: first, middle and last of this name


@dataclass(frozen=True)
class Spectrum:
    """One layer's singular values, largest first.

    Attributes:
        before: of the base weight.
        after: of the merged weight.
        scaled: the leading values after SALT's scale and shift, in the basis of the base weight.
        change: ||W~ - W||_F / ||W||_F.
    """

    layer: str
    before: np.ndarray
    after: np.ndarray
    scaled: np.ndarray
    change: float


def draw_spectra(table: Table, folder: Path) -> Drawn:
    """One figure for each section: the run of its SALT row with the lowest seed on the first dataset."""
    drawn = Drawn()
    for suffix, section in table.numbered_sections():
        row = section.tests.reference
        if row is None:
            continue
        run = row.runs[0]
        try:
            spectra = spectra_of(weights_file(run, table.weights))
        except UserError as error:
            drawn.notes.append(f"Spectra of {row.label}, {run.column} left out: {error}")
            continue
        if not spectra:
            drawn.notes.append(f"Spectra of {row.label}, {run.column} left out: none of its layers has singular values")
            continue
        _draw(spectra, f"{row.label}, {run.column}, seed {run.results.seed}", folder, f"spectra{suffix}", drawn)
    return drawn


def weights_file(run: Run, weights: Weights) -> Path:
    """The run's weights file. Raises: UserError for a missing one."""
    paths = [RunFolder(run.folder).best_weights]
    if weights == "last":
        recorded = Path(run.results.checkpoint.path or "model.safetensors")
        # The folder may have been moved; it is inside the folder of its weights where two runs share that one.
        paths = [run.folder / recorded.name, run.folder.parent / recorded.name, recorded]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"{paths[-1]}: no such file of weights")


def spectra_of(weights: Path) -> list[Spectrum]:
    """The spectra of the first, middle and last layer named `LAYER_NAME` (of all adapted layers where none is).

    Raises:
        UserError: no such file, or its base weights are missing.
    """
    model, _ = load_trained(weights)
    layers = [(name, layer) for name, layer in adapted_layers(model) if isinstance(layer, SpectralLayer)]
    layers = [(name, layer) for name, layer in layers if name.endswith(LAYER_NAME)] or layers
    chosen = sorted({0, len(layers) // 2, len(layers) - 1}) if layers else []
    with torch.no_grad():
        return [_spectrum(*layers[index]) for index in chosen]


def _spectrum(name: str, layer: SpectralLayer) -> Spectrum:
    base = (layer.U * layer.s) @ layer.Vh
    merged = layer.merged_weight().reshape(base.shape)
    change = torch.linalg.matrix_norm(merged - base) / torch.linalg.matrix_norm(base)
    return Spectrum(
        name.removeprefix("image_encoder."),
        layer.s.numpy().copy(),
        torch.linalg.svdvals(merged).numpy(),
        layer.top_values().numpy().copy(),
        float(change),
    )


def _draw(spectra: Sequence[Spectrum], run: str, folder: Path, name: str, drawn: Drawn) -> None:
    with figure(PAGE_WIDTH, 4.3) as drawing:
        axes = drawing.subplots(2, len(spectra), squeeze=False, sharex="col", height_ratios=(3, 2))
        for column, spectrum in enumerate(spectra):
            upper, lower = axes[:, column]
            index = np.arange(1, len(spectrum.before) + 1)
            top = len(spectrum.scaled)
            upper.semilogy(index, spectrum.before, color="#8a8a8a", linewidth=2.4, label="before")
            upper.semilogy(index, spectrum.after, color=COLOURS[1], linewidth=1.1, label="after (merged weight)")
            upper.semilogy(
                index[:top], np.where(spectrum.scaled > 0, spectrum.scaled, np.nan), ".", color=COLOURS[0],
                markersize=2.5, label="after, on the diagonal",
            )  # fmt: skip
            upper.set_title(f"{spectrum.layer}\nweight changed by {100 * spectrum.change:.1f}%")
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = [
                    100 * (after / spectrum.before[: len(after)] - 1) for after in (spectrum.after, spectrum.scaled)
                ]
            lower.axhline(0, color="#8a8a8a", linewidth=0.8)
            lower.plot(index, relative[0], color=COLOURS[1], linewidth=1.1)
            lower.plot(index[:top], relative[1], ".", color=COLOURS[0], markersize=2.5)
            lower.set_xlabel("index of the singular value")
            for axis in (upper, lower):
                axis.grid(True)
                if top < len(index):
                    axis.axvline(top + 0.5, color="black", linewidth=0.7, linestyle=":")
        axes[0][0].set_ylabel("singular value")
        axes[1][0].set_ylabel("change in %")
        handles, labels = axes[0][0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        changes = ", ".join(f"{spectrum.layer} {100 * spectrum.change:.1f}%" for spectrum in spectra)
        drawn.pictures.append(
            save(
                drawing, folder, name, "Singular values before and after SALT",
                f"{run}: singular values of some layers. Blue: the leading values, scaled and shifted, in the base "
                "weight's own directions; left of the dotted line. Orange: the singular values of the whole adapted "
                "weight, low-rank update and ReLU included, sorted anew. Below: both against the base weight's.",
                f"Line plots, logarithmic, of singular values before and after. Change of the whole weight: {changes}",
            )
        )  # fmt: skip
