"""What is detected: the languages, the task card with its labels, and the profiles that say how."""
