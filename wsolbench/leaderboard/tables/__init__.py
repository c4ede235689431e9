"""One file per table: finished runs as sheets, whatever the format."""
