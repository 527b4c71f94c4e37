"""The parts of the training loop: a run's state and folder, optimizer, processes, signals, log, moving average."""
