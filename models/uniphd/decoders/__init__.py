"""The decoders that the tables compare with UniPHD's own, in its frame."""
