"""polar_pipeline: multilingual text classification from raw posts to decisions that hold on unseen data."""

__version__ = "0.1.0"
