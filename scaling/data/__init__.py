"""From a labelled image set on disk to batches on the device."""
