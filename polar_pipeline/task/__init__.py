"""What is detected: the languages, and the task card with its labels."""
