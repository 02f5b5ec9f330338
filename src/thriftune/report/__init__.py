"""What an attempt cost, what it gained and why: for the terminal, as one HTML page, and for programs."""
