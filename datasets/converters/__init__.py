"""One file a public data set: its archive's layout, masks and split."""
