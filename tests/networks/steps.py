"""One training step of a module, to compare with another backend's."""

import copy

import san


def after_one_step(module, x, backend):
    """Output, gradients and buffers by name; the module stays as it is."""
    san.set_attention_backend(backend)
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    y = module(x)
    y.square().sum().backward()
    return {
        "y": y.detach(),
        "x": x.grad,
        **{name: p.grad for name, p in module.named_parameters()},
        **dict(module.named_buffers()),
    }
