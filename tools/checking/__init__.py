"""What `tools/check_refhuman.py` looks for: in the file's entries, in shapes, in images."""
