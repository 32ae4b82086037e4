"""UniPHD with 5 groups of queries instead of 20 (Table 10): how many guesses are needed?"""

_base_ = "../uniphd.py"

num_groups = 5
