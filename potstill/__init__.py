"""What the stages of the pipeline are made of."""
