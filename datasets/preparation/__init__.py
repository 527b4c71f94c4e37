"""From an archive and a converter to a folder of images, masks and data_split.csv."""
