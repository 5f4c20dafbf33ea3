"""Self-attention networks for image recognition.

`san.ops` holds the operators, `san.attention` the blocks and `san.networks`
the networks that are made of them.
"""

from san import ops
from san.attention import (
    PairwiseAttention,
    PatchwiseAttention,
    ScalarAttention,
)
from san.backend import (
    attention_backend,
    set_attention_backend,
    use_attention_backend,
)
from san.checkpoints import load_published_checkpoint
from san.cost import Cost, count_cost
from san.cuda_graph import CapturedNetwork, capture_for_inference
from san.folding import fold_for_inference
from san.fusion import why_unfused
from san.inspection import attention_blocks, attention_weights
from san.networks import (
    SAN,
    Bottleneck,
    FeaturePyramid,
    PaperRow,
    ResNet,
    create_model,
    list_models,
    paper_rows,
    set_stochastic_depth,
)
from san.version import __version__

__all__ = [
    "SAN",
    "Bottleneck",
    "CapturedNetwork",
    "Cost",
    "FeaturePyramid",
    "PairwiseAttention",
    "PaperRow",
    "PatchwiseAttention",
    "ResNet",
    "ScalarAttention",
    "__version__",
    "attention_backend",
    "attention_blocks",
    "attention_weights",
    "capture_for_inference",
    "count_cost",
    "create_model",
    "fold_for_inference",
    "list_models",
    "load_published_checkpoint",
    "ops",
    "paper_rows",
    "set_attention_backend",
    "set_stochastic_depth",
    "use_attention_backend",
    "why_unfused",
]
