"""What the training loop is made of: a run's state and folder, optimizer, processes, signals, log, moving average."""
