"""What `main.py check` examines and reports."""
