"""What to run: one readable file per study, with `get_config()` and `get_sweep()`."""
