"""What differs between kinds of fine-tuning: one file a task."""
