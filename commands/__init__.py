"""The commands of main.py: one file a command, with its options and what it calls."""
