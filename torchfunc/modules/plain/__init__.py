"""Plain PyTorch for what `torch.nn` has no module for: where `to_torch` and `to_source` put the layers that it lacks.

`to_source` prints these functions and classes as they stand, so they know nothing but torch, the standard library, and
functions elsewhere in torchfunc of which the same is true. The attributes of a module are called like the arguments of
its `__init__`. Functions that look at sizes are `torch.fx.wrap`ped, so that what calls them can be traced.
"""
