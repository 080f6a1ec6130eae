"""The progress line: Keras' wording, one line an epoch, and nothing but text where there is no terminal."""

import io
import re

import numpy as np
import pytest

from torchfunc.layers import Dense, Input
from torchfunc.models import Model
from torchfunc.viewing.progress import ProgressLine, format_progress

X = np.zeros((20, 3), "float32")
Y = np.zeros((20, 1), "float32")
TIME = r"\d+s \d+(us|ms|s)/step"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def model():
    inputs = Input((3,))
    model = Model(inputs, Dense(1)(inputs))
    model.compile("sgd", "mse")
    return model


class TestFormat:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (
                (750, 750, 0.647, {"accuracy": 0.84251, "loss": 0.5733}, "━", True),
                "750/750 ━━━━━━━━━━━━━━━━━━━━ 1s 863us/step - accuracy: 0.8425 - loss: 0.5733",
            ),
            ((5, 750, 1.0, None, "━", False), "  5/750                      149s 200ms/step".replace("149s", "2:29")),
            (
                (375, 750, 3.0, {"loss": 0.0001}, "=", False),
                "375/750 ========== " + " " * 10 + "3s 8ms/step - loss: 1.0000e-04",
            ),
            ((12, None, 24.0, None, "━", False), "     12/Unknown 24s 2s/step"),
            ((750, 750, 0.647, {"loss": -2.0}, "", True), "750/750 - 1s - 863us/step - loss: -2.0000"),
            ((1, 2, 4000.0, {"note": "x"}, "", True), "1/2 - 1:06:40 - 4000s/step - note: x"),
        ],
    )
    def test_as_in_keras(self, arguments, expected):
        assert re.sub(" +", " ", format_progress(*arguments)) == re.sub(" +", " ", expected)


class TestWithoutTerminal:
    def test_one_line_an_epoch(self, model, capsys):
        model.fit(X, Y, batch_size=10, epochs=2, validation_data=(X, Y))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Epoch 1/2"
        assert lines[2] == "Epoch 2/2"
        assert len(lines) == 4
        for line in (lines[1], lines[3]):
            assert re.fullmatch(rf"2/2 ━{{20}} {TIME} - loss: \S+ - val_loss: \S+", line)

    def test_verbose_two(self, model, capsys):
        model.fit(X, Y, batch_size=10, epochs=1, verbose=2)
        (line,) = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"2/2 - \d+s - \d+(us|ms|s)/step - loss: \S+", line)

    def test_evaluate_and_predict(self, model, capsys):
        model.evaluate(X, Y)
        model.predict(X)
        lines = capsys.readouterr().out.splitlines()
        assert re.fullmatch(rf"1/1 ━{{20}} {TIME} - loss: \S+", lines[0])
        assert re.fullmatch(rf"1/1 ━{{20}} {TIME}", lines[1])
        assert len(lines) == 2

    def test_silence(self, model, capsys):
        model.fit(X, Y, verbose=0, validation_split=0.5)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        assert capsys.readouterr() == ("", "")

    def test_unknown_length(self, model, capsys):
        model.fit((X, Y) for _ in range(3))
        assert re.match(r"3/3 ━", capsys.readouterr().out)


class TestInTerminal:
    def test_line_is_redrawn_and_ended(self, model, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        model.fit(X, Y, batch_size=1, epochs=1)
        text = terminal.getvalue()
        assert text.count("\n") == 1
        assert text.endswith("\n")
        last = text.split("\r")[-1]
        assert re.match(rf"20/20 ━{{20}} {TIME} - loss: ", last)

    @pytest.mark.parametrize("run", [Model.fit, Model.evaluate, Model.predict])
    def test_an_error_ends_the_line(self, model, monkeypatch, run):
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)

        def batches():
            yield X, Y
            raise KeyboardInterrupt

        # The error keeps the frames alive, so that only closing ends the line, and not the garbage collector.
        with pytest.raises(KeyboardInterrupt) as error:
            run(model, batches())
        assert terminal.getvalue().endswith("\n")
        assert error.tb is not None

    def test_redraws_and_finish(self):
        terminal = Terminal()
        line = ProgressLine(3, file=terminal)
        assert line.redraws
        line.update(1)
        line.update(2, {"loss": 0.5})
        line.finish(3, {"loss": 0.25})
        states = [state.strip() for state in terminal.getvalue().split("\r") if state.strip()]
        assert [state.split()[0] for state in states] == ["1/3", "2/3", "3/3"]
        assert "loss: 0.2500" in states[-1]


def test_an_encoding_without_the_bar():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    ProgressLine(2, file=file).finish(2)
    file.flush()
    assert file.buffer.getvalue().startswith(b"2/2 ====================")


def test_no_output_at_all(model, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    model.fit(X, Y, verbose=1)
