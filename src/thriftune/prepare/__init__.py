"""From a `Corpus` to `Splits`: repaired, without duplicates, on three sides that share nothing."""
