"""Studies such as `make table1-nano`: methods at equal budget on nano models and real images."""
