"""`python -m polar_pipeline` is the `polar` command."""

from polar_pipeline.cli import main

main()
