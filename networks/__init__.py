"""`SegmentationModel`, the protocol of all networks; what both SAMs share; and the traditional baselines."""
