"""Near-duplicates between two image sets: found, judged, and the judgement measured."""
