"""`folder`: one's own images in class folders, with boxes from files or masks."""
