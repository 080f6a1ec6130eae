"""Modules that others wrote, as layers: drawn on unknown sizes, equal to the plain call, trained, copied."""

import collections
import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, layers

Moments = collections.namedtuple("Moments", "mean parts")


@dataclasses.dataclass
class Inner:
    mean: torch.Tensor


@dataclasses.dataclass
class Outer:
    inner: Inner
    count: int = 3


@dataclasses.dataclass
class Sealed:
    mean: torch.Tensor
    derived: int = dataclasses.field(init=False, default=3)


class Returning(nn.Module):
    """A linear layer whose result is put into something."""

    def __init__(self, wrap):
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.scales = nn.ParameterList([nn.Parameter(torch.randn(8)) for _ in range(3)])
        self.shifts = nn.ParameterDict({"a": nn.Parameter(torch.randn(8))})

    def forward(self, x):
        for scale in self.scales:
            x = x * scale
        return x + self.shifts["a"]


class Experts(nn.Module):
    """Each row goes to the expert that a gate chooses."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList([nn.Linear(8, 4, bias=False) for _ in range(3)])

    def forward(self, x):
        scores = self.gate(x)
        chosen = scores.argmax(-1)
        found = x.new_zeros(x.size(0), 4)
        for number, expert in enumerate(self.experts):
            rows = torch.nonzero(chosen == number).squeeze(-1)
            found = found.index_add(0, rows, expert(x[rows]))
        return found * scores.max(-1, keepdim=True)[0]


def _lazy():
    module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
    module(torch.randn(2, 8))
    return module


def _functional(module, x):
    return torch.func.functional_call(module, dict(module.named_parameters()), (x,))


ROWS, STEPS = ((8,), (8, 8)), ((None, 8), (8, 5, 8))
# (what makes the module, how it is called, the declared and the real shape of the input)
CASES = {
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), lambda m, x: m(x, x), STEPS),
    "lstm": (lambda: nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), lambda m, x: m(x)[0], STEPS),
    "functional call": (lambda: nn.Linear(8, 4), _functional, ROWS),
    "parameter lists": (Lists, lambda m, x: m(x), ROWS),
    "lazy, built": (_lazy, lambda m, x: m(x), ROWS),
    "named tuple": (lambda: Returning(lambda y: Moments(y, {"k": [y]})), lambda m, x: m(x).parts["k"][0], ROWS),
    "dataclass": (lambda: Returning(lambda y: Outer(Inner(y))), lambda m, x: m(x).inner.mean * m(x).count, ROWS),
    "ordered dict": (lambda: Returning(lambda y: collections.OrderedDict(a=y)), lambda m, x: m(x)["a"], ROWS),
    "averaged": (lambda: torch.optim.swa_utils.AveragedModel(nn.Linear(8, 4)), lambda m, x: m(x), ROWS),
    "compiled": (lambda: torch.compile(nn.Linear(8, 4), backend="eager"), lambda m, x: m(x), ROWS),
    "experts": (Experts, lambda m, x: m(x), ROWS),
    "empty sequence": (lambda: nn.Sequential(), lambda m, x: m(x), ROWS),
}


def check(make, call, *declared):
    """Draw a module on inputs (shape, real data), compare with the plain call, train, copy."""
    module = make()
    inputs = [Input(shape, dtype=data.dtype) for shape, data in declared]
    data = [data for _, data in declared]
    y = call(module, *inputs)
    model = Model(inputs, y).eval()
    module.eval()
    torch.testing.assert_close(model(*data), call(module, *data))
    model = Model(inputs, layers.Dense(1)(torch.mean(y, 1) if y.ndim == 3 else y))
    model.compile("sgd", "mse")
    before = copy.deepcopy(model.state_dict())
    model.fit(data, torch.randn(len(data[0]), 1), batch_size=4, verbose=0)
    state = model.state_dict()
    assert list(state) == list(before)
    assert any(not torch.equal(state[name], before[name]) for name in state)
    duplicate = copy.deepcopy(model)
    np.testing.assert_allclose(duplicate.predict(data, verbose=0), model.predict(data, verbose=0), rtol=1e-4, atol=1e-5)
    duplicate.load_state_dict(before)
    assert all(torch.equal(value, before[name]) for name, value in duplicate.state_dict().items())


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("case", CASES)
def test_modules_of_many_kinds(case):
    make, call, (shape, real) = CASES[case]
    check(make, call, (shape, torch.randn(real)))


def test_a_dataclass_that_cannot_be_made_from_its_fields_is_refused():
    with pytest.raises(ValueError, match="returns a Sealed, in which no tensors"):
        Returning(Sealed)(Input((8,)))


SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "t5", "vit"])
def test_transformers(kind):
    transformers = pytest.importorskip("transformers")
    tokens = (None,), torch.randint(0, 50, (8, 7))
    bert = transformers.BertConfig(vocab_size=50, hidden_size=16, max_position_embeddings=32, **SIZES)
    llama = transformers.LlamaConfig(vocab_size=50, hidden_size=16, max_position_embeddings=32, **SIZES)
    gpt2 = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    t5 = transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    vit = transformers.ViTConfig(hidden_size=16, image_size=32, patch_size=8, **SIZES)
    if kind == "bert":
        ones = (None,), torch.ones(8, 7, dtype=torch.int64)
        call = lambda m, x, mask: m(input_ids=x, attention_mask=mask).last_hidden_state  # noqa: E731
        check(lambda: transformers.BertModel(bert, add_pooling_layer=False), call, tokens, ones)
    elif kind == "vit":
        images = (3, 32, 32), torch.randn(8, 3, 32, 32)
        check(lambda: transformers.ViTModel(vit), lambda m, x: m(x).pooler_output, images)
    else:
        # The decoders return a cache beside their hidden states.
        make = {
            "gpt2": lambda: transformers.GPT2Model(gpt2),
            "llama": lambda: transformers.LlamaModel(llama),
            "t5": lambda: transformers.T5EncoderModel(t5),
        }
        check(make[kind], lambda m, x: m(x).last_hidden_state, tokens)
