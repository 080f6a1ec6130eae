"""Drawing: symbolic values, and the record of what was called on them. Knows torch only."""

from torchfunc.graph.call_mode import (
    CallMode,
    copy_mode,
    flipped,
    preserved_modes,
    really_set,
    setting_compiled_parts,
)
from torchfunc.graph.example_sizes import example_shapes
from torchfunc.graph.hook import install_hook
from torchfunc.graph.inference import copies_to_share, fake_copy, infer, infer_call, infer_module
from torchfunc.graph.node import (
    Node,
    Spec,
    SymbolicValue,
    replay,
    symbolic_leaves,
    topological_order,
)
from torchfunc.graph.source import format_source, located
from torchfunc.graph.symbolic import (
    SymbolicInt,
    SymbolicTensor,
    contains_symbolic,
    only_real,
    record,
    record_function,
    record_input,
    record_method,
    record_module,
    symbolic_tensors,
    tensor_method,
)
from torchfunc.graph.torch_internals import (
    GLOBAL_HOOKS,
    FakeTensor,
    autograd_in_operator,
    graph_specs,
    has_step_hooks,
    hook_tables,
    is_exporting,
    is_hooked,
    storage_use_count,
)
from torchfunc.graph.tracing import once_for_all, pass_over, with_own_code

__all__ = [
    "GLOBAL_HOOKS",
    "CallMode",
    "FakeTensor",
    "Node",
    "Spec",
    "SymbolicInt",
    "SymbolicTensor",
    "SymbolicValue",
    "autograd_in_operator",
    "contains_symbolic",
    "copies_to_share",
    "copy_mode",
    "example_shapes",
    "fake_copy",
    "flipped",
    "format_source",
    "graph_specs",
    "has_step_hooks",
    "hook_tables",
    "infer",
    "infer_call",
    "infer_module",
    "install_hook",
    "is_exporting",
    "is_hooked",
    "located",
    "once_for_all",
    "only_real",
    "pass_over",
    "preserved_modes",
    "really_set",
    "record",
    "record_function",
    "record_input",
    "record_method",
    "record_module",
    "replay",
    "setting_compiled_parts",
    "storage_use_count",
    "symbolic_leaves",
    "symbolic_tensors",
    "tensor_method",
    "topological_order",
    "with_own_code",
]
