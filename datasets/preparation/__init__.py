"""Turning an archive, with its converter, into a folder of images, masks and data_split.csv."""
