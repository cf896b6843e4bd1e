"""From any image set to one that TFDS reads: ArrayRecord shards, without TensorFlow."""
