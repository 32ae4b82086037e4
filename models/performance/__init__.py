"""What makes the models faster on a CPU, and nothing else.

The modules here have the parameters, the names and the results of the plain PyTorch modules that
they stand for; README of the figures: docs/performance.md.  Without them every model still works.
"""
