"""The study of `make study`: methods at equal budget on nano models and the real DRIVE set."""
