"""Our forecasts of learning curves beside the published ones, on public curves."""
