"""Networks for inference only: every batch norm becomes part of its peers.

`networks` folds whole networks, `attention` the attention blocks; `layers`
holds what both are made of.
"""

from san.folding.networks import fold_for_inference

__all__ = ["fold_for_inference"]
