"""One file for each public data set: the layout of its archive, its masks and its split."""
