"""What tools/browse_refhuman.py is made of: the page's data, and the page itself."""
