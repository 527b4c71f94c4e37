"""The blocks of SAM2's trunk, rearranged for speed as SAM's are; the weights' names stay SAM2's own."""

from sam2.modeling.backbones.hieradet import MultiScaleBlock
from torch import nn

from prompt_adapted_segment_anything.attention import EncoderBlock


class TrunkBlock(EncoderBlock):
    """A block of SAM2's Hiera that keeps the grid, equal to the package's `MultiScaleBlock` up to rounding.

    It pads its windows as SAM's block does, and has no relative positions.
    """

    rel_pos = None

    @property
    def mlp_layers(self) -> tuple[nn.Module, nn.Module]:
        return tuple(self.mlp.layers)

    @staticmethod
    def can_replace(block: MultiScaleBlock) -> bool:
        """Whether a block keeps the grid and its width, and drops no paths: all but the first of a stage."""
        return block.q_stride is None and block.dim == block.dim_out and isinstance(block.drop_path, nn.Identity)
