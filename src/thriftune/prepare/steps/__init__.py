"""The preparation steps, one file each: a frame goes in, a frame and its counts come out."""
