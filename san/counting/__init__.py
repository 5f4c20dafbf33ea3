"""What `san.cost` counts a network by.

`copies` makes the copy that runs, `rules` knows what PyTorch's operators
cost, and `own` what those of san compute, which it also tells
torch.utils.flop_counter.
"""
