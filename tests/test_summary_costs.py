"""`model.summary(show=...)`: FLOPs against closed forms and torch's own counter, memory, dtypes; and its HTML."""

from __future__ import annotations

import html.parser
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from torchfunc import Input, Model, Sequential, layers
from torchfunc.viewing import Summary, summarize

ALL = ["flops", "memory", "dtype"]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def costs(model: Model, **options: Any) -> dict[str, list[str]]:
    summary = summarize(model, show=ALL, **options)
    first = [title for title, _ in summary.columns].index("FLOPs")
    return {row[0].strip(" └").split(" ")[0]: list(row[first : first + 3]) for row in summary.rows}


def total(model: Model) -> int:
    line = next(line for line in summarize(model, show=["flops"]).totals if "FLOPs" in line)
    return int(line.rsplit(" ", 1)[1].replace(",", ""))


def test_closed_forms():
    image = Input((9, 7, 3), name="image")
    x = layers.Conv2D(5, (3, 2), name="conv")(image)
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.BatchNormalization(name="norm")(x))
    found = costs(Model(image, layers.Dense(4, name="dense")(layers.Flatten(name="flat")(x))))
    # (9, 7, 3) -> (7, 6, 5) -> (5, 4, 5): two for a multiplication and an addition, at each position.
    assert found == {
        "image": ["0", "756.00 B", "float32"],
        "conv": [f"{2 * (7 * 6) * 5 * (3 * 2 * 3):,}", "840.00 B", "float32"],
        "norm": ["0", "840.00 B", "float32"],
        "depthwise": [f"{2 * (5 * 4) * 5 * 9:,}", "400.00 B", "float32"],
        "flat": ["0", "400.00 B", "float32"],
        "dense": [f"{2 * 100 * 4:,}", "16.00 B", "float32"],
    }


def test_attention_and_recurrent_layers():
    tokens = Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 6, name="embedding")(tokens)
    x = layers.MultiHeadAttention(3, 4, name="attention")(x, x)
    x = layers.LSTM(5, name="lstm", return_sequences=True)(x)
    x = layers.GRU(8, name="gru", return_sequences=True)(x)
    x = nn.LSTM(8, 2, batch_first=True)(x)[0]
    found = costs(Model(tokens, x.mT @ x))
    # Queries, keys, values and the way back; the scores of each pair, and the values added up by them.
    assert found["attention"][0] == f"{2 * 7 * 6 * 12 * 4 + 2 * 2 * 3 * 7 * 7 * 4:,}"
    assert found["lstm"][0] == f"{2 * 7 * 4 * 5 * (6 + 5):,}"
    assert found["gru"][0] == f"{2 * 7 * 3 * 8 * (5 + 8):,}"
    assert found["lstm_1"][0] == f"{2 * 7 * 4 * 2 * (8 + 2):,}"
    assert found["matmul"] == [f"{2 * 2 * 2 * 7}", "16.00 B", "float32"]
    assert found["tokens"] == ["0", "28.00 B", "int32"]
    assert found["embedding"] == ["0", "168.00 B", "float32"]


def test_totals_are_those_of_torchs_counter_on_the_plain_module():
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(), nn.Linear(4 * 16 * 16, 10),
    ).eval()  # fmt: skip
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(torch.zeros(1, 3, 8, 8))
    x = inputs = Input((3, 8, 8))
    for module in plain:
        x = module(x)
    drawn = Model(inputs, x)
    assert total(drawn) == total(Model(inputs, plain(inputs))) == counter.get_total_flops() > 0
    # A batch of a fixed size counts for one sample as well.
    fixed = Input((3, 8, 8), batch_size=6)
    assert total(Model(fixed, plain(fixed))) == counter.get_total_flops()


def test_nothing_real_is_run_or_changed():
    inputs = Input((4,))
    x = layers.Dropout(0.5)(layers.BatchNormalization()(inputs))
    model = Model(inputs, nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())(x))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    summarize(model, show=ALL)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())


def test_nested_models_shared_layers_and_weights_of_the_model():
    code = Input((6,), name="code")
    inner = Model(code, layers.Dense(2, name="small")(layers.Dense(3, name="big")(code)), name="inner")
    a, b = Input((6,), name="a"), Input((6,), name="b")
    model = Model([a, b], inner(a) + inner(b) * nn.Parameter(torch.ones(2)))
    found = costs(model, expand_nested=True)
    one = 2 * 6 * 3 + 2 * 3 * 2
    assert found["inner"] == [str(2 * one), f"{2 * 4 * (3 + 2)}.00 B", "float32"]
    # As the rest of their rows: of the one graph that they belong to.
    assert (found["big"], found["small"]) == (["36", "12.00 B", "float32"], ["12", "8.00 B", "float32"])
    assert found["parameter"] == ["0", "0.00 B", "-"]
    assert total(model) == 2 * one


def test_open_sizes_are_not_guessed():
    x = Input((None, 4), name="x")
    y = layers.Dense(3, name="dense")(x)
    model = Model(x, layers.Dense(2, name="out")(layers.GlobalAveragePooling1D(name="mean")(y)))
    found = costs(model)
    assert found["dense"] == ["?", "?", "float32"]
    assert found["out"] == ["12", "8.00 B", "float32"]
    assert any("FLOPs per sample: ? (some sizes are open" in line for line in summarize(model, show=ALL).totals)


def test_models_that_are_not_drawn():
    class Net(Model):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.dense, self.linear = layers.Embedding(9, 4), layers.Dense(4), nn.Linear(4, 2)

        def call(self, inputs: Any) -> Any:
            return self.linear(self.dense(self.dense(self.embedding(inputs))).double().float())

    model = Net()
    assert costs(model)["dense"] == ["?", "?", "-"]
    model(np.zeros((3, 5), "int32"))
    assert costs(model) == {
        "embedding": ["0", "80.00 B", "float32"],
        "dense": ["320", "160.00 B", "float32"],
        "linear": ["80", "40.00 B", "float32"],
    }
    stack = Sequential([layers.Dense(3)])
    assert costs(stack)["dense"][0] == "?"
    stack.build((None, 5))
    assert costs(stack)["dense"] == ["30", "12.00 B", "float32"]


def test_what_cannot_be_run_without_data_is_unknown():
    x = Input((4,))
    chosen = layers.Lambda(lambda t: t[t[:, 0] > 0] @ torch.ones(4, 3), output_shape=(3,), name="chosen")(x)
    assert costs(Model(x, chosen))["chosen"] == ["?", "12.00 B", "float32"]


@pytest.mark.parametrize("options", [{}, {"show_trainable": True}, {"line_length": 90}, {"positions": [40, 60, 80]}])
def test_cells_of_further_columns_are_never_cut(options):
    x = Input((784,))
    text = str(summarize(Model(x, layers.Dense(1000)(layers.Dense(2000)(x))), show=ALL, **options))
    for cell in ("3,136,000", "4,000,000", "7.81 KB", "float32"):
        assert f" {cell} " in text
    assert len({len(line) for line in text.splitlines()[1:-5]}) == 1


def test_unknown_columns_are_told():
    x = Input((2,))
    model = Model(x, layers.Dense(1)(x))
    with pytest.raises(ValueError, match=r"`show` .* 'flops', 'memory', 'dtype', got 'flop'. Did you mean 'flops'\?"):
        model.summary(show=["flop"])


class Cells(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_notebook_gets_a_table_and_a_script_its_text(monkeypatch, capsys):
    x = Input((2,), name="x")
    model = Model(x, layers.Dense(1, name="<b>")(x), name="small & plain")
    shown: list[Summary] = []
    monkeypatch.setattr("torchfunc.models.in_notebook", lambda: True)
    monkeypatch.setattr("torchfunc.models.show_in_notebook", shown.append)
    assert model.summary(show=["flops"]) is None
    assert capsys.readouterr().out == ""
    page = shown[0]._repr_html_()
    assert Cells(page.split("</table>")[0]).rows == [
        ["Layer (type)", "Output Shape", "Param #", "FLOPs"],
        ["x (InputLayer)", "(None, 2)", "0", "0"],
        ["<b> (Dense)", "(None, 1)", "3", "4"],
    ]
    assert "small &amp; plain" in page
    assert "Total params: 3 (12.00 B)<br>" in page
    assert repr(shown[0]) == str(shown[0])
    monkeypatch.setattr("torchfunc.models.in_notebook", lambda: False)
    model.summary()
    assert capsys.readouterr().out == f"{summarize(model)}\n"
