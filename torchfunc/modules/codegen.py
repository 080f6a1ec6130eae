"""The code of a model's forward: torch.fx's, reading `self._modules` once instead of each layer through `self`.

`self.dense` costs a failed attribute look-up and a search through three dicts at every call of every layer;
`modules["dense"]` is one dict access.
"""

from __future__ import annotations

import itertools
import linecache
import re
from collections.abc import Callable
from typing import Any

from torch import fx
from torch.fx.graph import CodeGen, PythonCode

from torchfunc.modules.naming import unique_name

__all__ = ["ModuleTableCodeGen", "compile_forward"]

_numbers = itertools.count()
_MODULE_CALL = re.compile(r'^(    \w+(?: : [^=]+?)? = )(?:self\.(\w+)|getattr\(self, "([^"]+)"\))\(', re.MULTILINE)


class ModuleTableCodeGen(CodeGen):
    """Generates `dense = modules["dense"](x)` for a call of a submodule."""

    def _gen_python_code(self, nodes: Any, root_module: str, namespace: Any, **options: Any) -> PythonCode:
        nodes = list(nodes)
        table = unique_name("modules", {node.name for node in nodes})
        code: PythonCode = super()._gen_python_code(nodes, root_module, namespace, **options)
        source, count = _MODULE_CALL.subn(lambda found: f'{found[1]}{table}["{found[2] or found[3]}"](', code.src)
        if not count:
            return code
        head, body = re.split(r"(?<=:)\n(?=    )", source, maxsplit=1)
        code.src = f"{head}\n    {table} = self._modules\n{body}"
        if code._lineno_map is not None:
            code._lineno_map = {line + 1: index for line, index in code._lineno_map.items()}
        return code


def compile_forward(graph: fx.Graph) -> Callable[..., Any]:
    """The `forward` of a graph as a function of the module and its inputs, beside the one the module has."""
    code = graph.python_code("self")
    names = dict(code.globals)
    file = f"<forward for training {next(_numbers)}>"
    # So that tracebacks, and what torch.compile says, show the line.
    linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
    # As torch.fx does it: annotations in the code are to be types, not strings.
    exec(compile(code.src, file, "exec", dont_inherit=True), names)
    function: Callable[..., Any] = names["forward"]
    return function
