"""The study of `make study`: methods at equal budget on nano models and real DRIVE, from a plan to a page."""
