"""From scores to decisions: calibration, threshold, ensemble. Knows posts and scores, not how models are trained."""
