"""From source files to a `Corpus`: one Parquet file with provenance a row, and not one row lost in silence."""
