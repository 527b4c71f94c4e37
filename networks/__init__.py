"""The networks behind one protocol, `SegmentationModel`: prompt-adapted SAM and SAM2, and the baselines."""
