"""Where one fused operator stands in for modules, and why not elsewhere.

A fused operator reads weights out of modules and calls none of them. So it may
stand in for them only where each is exactly what the operator computes: `rule`
says whether, in words. `groups` are the runs of modules that there are
operators for; each computes fused where the rule allows it and calls its
modules one by one, in their order, where not. Nothing is remembered between
two calls.
"""

from san.fusion.groups import (
    Group,
    NormRelu,
    NormReluLinear,
    Pointwise,
    Stem,
)
from san.fusion.reasons import describe_unfused, reasons_of, why_unfused

__all__ = [
    "Group",
    "NormRelu",
    "NormReluLinear",
    "Pointwise",
    "Stem",
    "describe_unfused",
    "reasons_of",
    "why_unfused",
]
