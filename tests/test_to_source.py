"""Model.to_source: a file of plain PyTorch that gives the same where torchfunc is not there."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from plain_models import LAYERS, layer_model
from test_examples import EXAMPLES, RUNS, load
from test_random_graphs import programs
from test_to_torch import Block, Doubled, image_model
from torch import nn

from torchfunc import Input, Model, Sequential, layers

# More of them with TO_SOURCE_GRAPHS=200.
GRAPHS = int(os.environ.get("TO_SOURCE_GRAPHS", "40"))
HERE = pathlib.Path(__file__).parent


class Cases:
    """Models as files, each with what it gives, to be run by themselves."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, model, inputs, class_name=None):
        """Write one; its number is its name."""
        path = self.folder / f"case_{len(list(self.folder.glob('*.py')))}.py"
        source = model.to_source(path, class_name)
        assert path.read_text(encoding="utf-8") == source
        assert "torchfunc" not in source
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        mode, expected = model.training, {}
        for training in (False, True):
            torch.manual_seed(1)
            outputs = model.train(training)(*inputs)
            after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            expected[training] = (torch.utils._pytree.tree_map(torch.Tensor.detach, outputs), after)
            model.load_state_dict(state)
        model.train(mode)
        torch.save({"state": state, "inputs": list(inputs), "expected": expected}, path.with_suffix(".pt"))
        return source

    def run(self):
        """What goes wrong where torchfunc cannot be imported, by file."""
        command = [sys.executable, str(HERE / "plain_runner.py"), str(self.folder)]
        found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=self.folder)
        return json.loads(found.stdout)


@pytest.fixture
def cases(tmp_path):
    return Cases(tmp_path)


def formatted(folder):
    """Whether ruff has nothing to say about the files."""
    settings = ["--config", str(HERE.parent / "pyproject.toml")]
    for command in (["check"], ["format", "--check"]):
        found = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings, str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout
    return True


@pytest.mark.slow  # Every layer as a file, in one process of its own.
def test_every_layer(cases):
    for name in LAYERS:
        cases.add(*layer_model(name))
    assert cases.run() == {}
    assert formatted(cases.folder)


@pytest.mark.slow  # So many graphs, in one process of their own.
def test_random_graphs(cases):
    seen = []

    @settings(max_examples=GRAPHS, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(programs())
    def write(program):
        seen.append(cases.add(program.model(), program.data()))

    write()
    assert len(seen) == GRAPHS
    assert cases.run() == {}


class Stop(Exception):
    pass


def models_of_examples(monkeypatch):
    """The model of each example: what it builds, or what it first trains."""
    found = []

    def fit(model, *args, **kwargs):
        found.append(model)
        raise Stop

    monkeypatch.setattr(Model, "fit", fit)
    for path in sorted(EXAMPLES.glob("*.py")):
        example = load(path.stem)
        if hasattr(example, "build_model"):
            found.append(example.build_model())
        else:
            with pytest.raises(Stop):
                example.main(**RUNS[path.stem][0])
    return found


@pytest.mark.slow  # Every example is read, and its model runs in a process of its own.
def test_examples(cases, monkeypatch):
    models = models_of_examples(monkeypatch)
    assert len(models) == len(RUNS)
    for model in models:
        inputs = []
        for drawn in model.inputs:
            shape = [3 if size is None else size for size in drawn.shape]
            inputs.append(torch.rand(shape) if drawn.dtype.is_floating_point else torch.randint(1, 4, shape))
        cases.add(model, inputs)
    assert cases.run() == {}
    assert formatted(cases.folder)


def as_module(source, name="written"):
    file = types.ModuleType(name)
    sys.modules[name] = file
    exec(compile(source, f"<{name}>", "exec"), vars(file))
    return vars(file)[vars(file)["__all__"][0]]


def scaled(x, by):
    """At the top of a module, so that its source can be had."""
    return F.relu(x) * by


class Gate(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.linear = nn.Linear(size, size)

    def forward(self, x):
        return x * torch.sigmoid(self.linear(x))


class Untold(nn.Module):
    def __init__(self, size, twice):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(size, size) for _ in range(2 if twice else 1)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class TestModels:
    def test_text(self):
        inputs = Input((4,), name="row")
        hidden = layers.Dense(3, activation="relu", name="hidden")(inputs)
        model = Model(inputs, layers.Dense(2)(hidden) * 2 - inputs[:, 1:3], name="small")
        assert model.to_source() == (
            '"""Small: a model in plain PyTorch."""\n'
            "\n"
            "from __future__ import annotations\n"
            "\n"
            "import torch\n"
            "from torch import nn\n"
            "\n"
            '__all__ = ["Small"]\n'
            "\n"
            "\n"
            "class Small(nn.Module):\n"
            '    """The model \'small\'."""\n'
            "\n"
            "    def __init__(self) -> None:\n"
            "        super().__init__()\n"
            "        self.hidden = nn.Linear(4, 3)\n"
            "        self.dense = nn.Linear(3, 2)\n"
            "\n"
            "    def forward(self, row: torch.Tensor):\n"
            "        hidden = self.hidden(row)\n"
            "        hidden_relu = torch.relu(hidden)\n"
            "        dense = self.dense(hidden_relu)\n"
            "        mul = dense * 2\n"
            "        return mul - row[:, 1:3]\n"
        )

    def test_kinds_of_models(self, cases):
        row, x = Input((4,)), torch.randn(3, 4)
        tower = Sequential([layers.Dense(5, activation="tanh"), layers.Dropout(0.5)], name="tower")
        other = Input((4,))
        head = layers.Dense(2)
        outputs = {"x": head(tower(row)), "y": [head(tower(other, training=False)), row * 2.0]}
        cases.add(Model([row, other], outputs), [x, x + 1], "Pair")
        steps = Input((5, 4))
        deep = Model(steps, layers.TimeDistributed(tower)(Block(4)(steps)))
        cases.add(deep, [torch.randn(2, 5, 4)])
        row = Input((4,))
        scale = nn.Parameter(torch.randn(4))
        z = layers.Lambda(scaled, arguments={"by": 3})(row * scale + torch.arange(4.0))
        z = layers.Lambda(lambda x: x.tanh())(z)
        z = Untold(4, twice=True)(Gate(4)(z))
        z = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.LayerNorm(3)))(z)
        largest = torch.max(z, dim=1)
        cases.add(Model(row, [largest.values, largest[1], z.reshape(z.shape[0], -1, 1)]), [x])
        tokens = Input((6,), dtype="int64", name="input")
        z = layers.Embedding(9, 4, mask_zero=True)(tokens)
        z = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="class")(z)
        z = layers.Multiply()([layers.Dense(3, name="1 x 1")(z), layers.GRU(3, return_sequences=True)(z)])
        z = layers.MultiHeadAttention(2, 2)(z, z)
        ids = torch.tensor([[1, 2, 3, 0, 0, 0], [4, 0, 5, 6, 7, 8]])
        cases.add(Model(tokens, [layers.GlobalAveragePooling1D()(z), layers.LSTM(2)(z)], name="my model"), [ids])
        assert cases.run() == {}

    def test_frozen_and_precise(self):
        model = image_model()
        model.get_layer("conv2d").trainable = False
        model.to(torch.float64)
        written = as_module(model.to_source())()
        written.load_state_dict(model.state_dict())
        own = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        assert {name: parameter.requires_grad for name, parameter in written.named_parameters()} == own
        x = torch.randn(2, 8, 8, 3, dtype=torch.float64)
        torch.testing.assert_close(written.eval()(x), model.eval()(x))

    def test_trains_as_the_model_does(self):
        model, x = image_model(), torch.randn(16, 8, 8, 3)
        written = as_module(model.to_source())()
        written.load_state_dict(model.state_dict())
        for module in (model, written):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
            for step in range(3):
                torch.manual_seed(step)
                optimizer.zero_grad()
                F.nll_loss(module(x).log(), torch.arange(16) % 3).backward()
                optimizer.step()
        torch.testing.assert_close(dict(written.state_dict()), dict(model.state_dict()), rtol=1e-4, atol=1e-5)

    def test_helpers_only_where_they_are_used(self):
        inputs = Input((None, None, 3))
        same = Model(inputs, layers.Conv2D(2, 3, strides=2, padding="same")(inputs)).to_source()
        valid = Model(inputs, layers.Conv2D(2, 3, strides=2)(inputs)).to_source()
        assert same.count("def pad_same") == 1
        assert "def pad_same" not in valid

    def test_names_that_meet_those_of_the_file(self):
        inputs = Input((4,), name="torch")
        x = layers.Dense(3, name="nn")(inputs)
        x = layers.Dense(3, name="F", activation="gelu")(x)
        x = layers.Dense(3, name="len", activation="sparsemax")(x)
        model = Model(inputs, layers.Dense(2, name="sparsemax")(x), name="for")
        written, x = as_module(model.to_source())(), torch.randn(2, 4)
        written.load_state_dict(model.state_dict())
        torch.testing.assert_close(written(x), model(x))


class TestRefusals:
    def test_layers(self):
        inputs = Input((4,))
        model = Model(inputs, Doubled(name="twice")(inputs))
        with pytest.raises(ValueError, match=r"Doubled 'twice' cannot be written as plain PyTorch"):
            model.to_source()

    def test_cells_of_the_user(self):
        class Cell(layers.Layer):
            state_size = 3

            def call(self, inputs, states):
                return inputs[:, :3], [states[0] + 1]

        inputs = Input((5, 4))
        with pytest.raises(ValueError, match="RNN 'steps'"):
            Model(inputs, layers.RNN(Cell(), name="steps")(inputs)).to_source()

    def test_functions_without_a_name(self):
        inputs = Input((4,))
        layer = layers.Lambda(lambda x: x if x.sum() else x * 2, output_shape=(4,), name="choice")
        with pytest.raises(ValueError, match="Lambda 'choice'"):
            Model(inputs, layer(inputs)).to_source()

    def test_a_name_for_the_class(self):
        with pytest.raises(ValueError, match="got 'my net'"):
            image_model().to_source(class_name="my net")

    def test_nothing_is_written(self, tmp_path):
        path = tmp_path / "model.py"
        with pytest.raises(ValueError, match="not built yet"):
            Sequential([layers.Dense(2)]).to_source(path)
        assert not path.exists()
