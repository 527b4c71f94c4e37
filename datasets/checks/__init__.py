"""The integrity check behind `main.py check`."""
