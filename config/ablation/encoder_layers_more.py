"""UniPHD with more encoder layers (Table 11): is it the size that makes the difference?

The paper does not say how many; here it is half as many again, 9 instead of 6.
"""

_base_ = "../uniphd.py"

encoder_layers = 9
