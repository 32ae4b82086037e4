"""What makes the models faster on a CPU, and nothing else.

The modules here have the parameters, the names and the results of the plain PyTorch modules and
functions that they stand for.  What each is worth: docs/performance.md.
"""
