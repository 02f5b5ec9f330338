"""What is still to be done, what it will take, and whether that fits."""
