"""What the commands of `polar` print, and in which order they call the stages."""
