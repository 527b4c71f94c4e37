"""Times inference: SAM's image encoder with merged adapters beside segment_anything's own, or the detail head.

    python -m benchmarks.inference [--sizes 512 1024] [--batch 1] [--rounds 11] [--heads] [--output runs/bench]

Both encoders have the same weights. The benchmark ends with an error if their embeddings differ. `--heads` times the
whole merged model, from image to mask logits, with the detail head and without it.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import adapters
from benchmarks.naive import use_stock_blocks
from benchmarks.step import LABEL, TABLE1
from benchmarks.timing import Comparison, interleaved, parser, precisions, publish
from model import build_model
from utils.config import load_config

TOLERANCE = 1e-4  # of the embedding in float32


def encoders(size: int, overrides: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The image encoder of a SALT model with merged adapters, and segment_anything's with the same weights."""
    options = ["sam.weights=random", f"sam.img_size={size}", *overrides]
    found: dict[str, nn.Module] = {}
    for name in ("stock", "ours"):
        torch.manual_seed(0)
        model = build_model(load_config(TABLE1 / "salt_4.yaml", None, options), encode_text=False).eval()
        adapters.merge(model)
        if name == "stock":
            use_stock_blocks(model)
        found[name] = model.get_submodule("image_encoder")
    return found


def compare(
    size: int, batch: int, rounds: int, overrides: Sequence[str] = (), timed: Sequence[str] = ("fp32",)
) -> Comparison:
    """Times both in the precisions `timed`, fp32 first. Raises ValueError if their embeddings differ in float32."""
    images = torch.randn(batch, 3, size, size)
    found = encoders(size, overrides)
    difference = float((_embed(found["ours"], images, False) - _embed(found["stock"], images, False)).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(f"size {size}: the embeddings differ by {difference}")
    ways: dict[str, Callable[[], Tensor]] = {
        f"{name} {precision}": partial(_embed, encoder, images, precision == "bf16")
        for precision in timed
        for name, encoder in found.items()
    }
    seconds = interleaved(ways, rounds)
    return Comparison(f"{size} pixels", seconds, "stock fp32", batch, {"largest_difference_fp32": difference})


def compare_heads(size: int, batch: int, rounds: int, overrides: Sequence[str] = ()) -> Comparison:
    """Times the whole merged model in float32, with SAM's own mask head and with the detail head."""
    images, labels = torch.randn(batch, 3, size, size), [LABEL] * batch
    ways: dict[str, Callable[[], Tensor]] = {}
    for head in ("official", "detail"):
        options = ["sam.weights=random", f"sam.img_size={size}", f"sam.mask_head={head}", *overrides]
        model = build_model(load_config(TABLE1 / "salt_256.yaml", None, options), encode_text=False).eval()
        adapters.merge(model)
        ways[f"{head} fp32"] = partial(torch.inference_mode()(model), images, labels)
    return Comparison(f"mask heads, {size} pixels", interleaved(ways, rounds), "official fp32", batch)


def _embed(encoder: nn.Module, images: Tensor, bf16: bool) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return encoder(images)


def main(argv: Sequence[str] | None = None) -> None:
    """Times all sizes and publishes the result."""
    arguments = parser(__doc__)
    arguments.add_argument("--sizes", nargs="+", type=int, default=[512, 1024])
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--heads", action="store_true", help="the whole model with and without the detail head")
    arguments.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the model's config")
    args = arguments.parse_args(argv)
    if args.heads:
        heads = [compare_heads(size, args.batch, args.rounds, args.set) for size in args.sizes]
        publish("inference_heads", heads, args.output)
        return
    timed = precisions()
    comparisons = [compare(size, args.batch, args.rounds, args.set, timed) for size in args.sizes]
    publish("inference", comparisons, args.output)


if __name__ == "__main__":
    main()
