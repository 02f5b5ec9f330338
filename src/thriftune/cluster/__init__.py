"""More machines for intensive phases, fewer after: nodes that come and go, each metered by a lease of its own."""
