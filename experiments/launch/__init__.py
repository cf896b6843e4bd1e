"""Where workers run. A launcher places and restarts them; it knows nothing of training."""
