"""Selection: what a tuned model must beat, made before anything is tuned."""
