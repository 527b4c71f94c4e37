"""The commands of main.py: one file per command, with its options and what it calls."""
