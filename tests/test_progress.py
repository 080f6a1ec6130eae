"""The progress line: Keras' wording, one line an epoch, and nothing but text where there is no terminal."""

import io
import itertools
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from torchfunc import callbacks
from torchfunc.layers import Dense, Input
from torchfunc.models import Model
from torchfunc.viewing.progress import ProgressLine, format_progress, print_message

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


def keras_lines(monkeypatch, capsys, target, verbose, moments):
    """What Keras' progress bar prints at each `(steps done, seconds, logs)`, without colours; the last one ends it."""
    clock = [0.0]
    monkeypatch.setattr("keras.src.utils.progbar.time", SimpleNamespace(time=lambda: clock[0]))
    bar = keras.utils.Progbar(target, verbose=verbose, interval=0)
    printed = []
    for index, (current, seconds, logs) in enumerate(moments):
        clock[0] = seconds
        capsys.readouterr()
        bar.update(current, list(logs.items()), finalize=index == len(moments) - 1)
        text = capsys.readouterr().out
        printed.append(re.sub(r"\x1b\[37m━*\x1b\[0m|\x1b\[\d+m|[\b\r\n]", "", text).rstrip())
    return printed


class TestFormat:
    @pytest.mark.parametrize(("target", "verbose"), [(4, 1), (750, 1), (None, 1), (4, 2), (750, 2)])
    @pytest.mark.parametrize("second", [3e-4, 0.02, 7.4, 200.0])
    def test_as_in_keras(self, monkeypatch, capsys, target, second, verbose):
        logs = {"accuracy": 0.84251, "loss": 5.5e-4}
        # A slow first step, then others; as many as that are done each time.
        moments = [(1, 30.0, logs), (2, 30.0 + second, logs), (4, 30.0 + 3 * second, logs)]
        expected = keras_lines(monkeypatch, capsys, target, verbose, moments)
        clock = [0.0]
        monkeypatch.setattr("torchfunc.viewing.progress.time", SimpleNamespace(perf_counter=lambda: clock[0]))
        shown = []
        line = ProgressLine(target, draws_bar=verbose == 1, file=Terminal())
        line._draw = lambda current, text, refresh=True: shown.append(text)
        for current, seconds, _ in moments[:-1]:
            clock[0] = seconds
            line.update(current, logs)
        clock[0] = moments[-1][1]
        line.redraws = True
        line.finish(4, logs)
        if verbose == 2:
            expected = [text for text in expected if text]
        assert [re.sub(" +", " ", text) for text in shown] == [re.sub(" +", " ", text) for text in expected]

    @pytest.mark.parametrize(("value", "text"), [(-2.0, "-2.0000"), ("x", "x"), (np.array([1.0, 2.0]), "1.5000")])
    def test_numbers(self, value, text):
        assert format_progress(1, 2, 1.0, {"n": value}, "").endswith(f" - n: {text}")


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

    def test_nothing_is_read_for_a_line_that_is_not_drawn(self, model, monkeypatch):
        reads = []
        read = type(model).get_metrics_result
        monkeypatch.setattr(Model, "get_metrics_result", lambda self: reads.append(1) or read(self))
        model.fit(X, Y, batch_size=1)
        assert len(reads) == 1

    def test_a_log_file_gets_no_control_characters(self, model, capsys):
        stop = callbacks.EarlyStopping("loss", patience=0, min_delta=10.0, verbose=1)
        model.fit(X, Y, epochs=3, callbacks=stop)
        out = capsys.readouterr().out
        assert "Epoch 2: early stopping" in out.splitlines()
        assert not re.search(r"[\r\b\x1b]", out)

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

    def test_messages_do_not_break_the_line(self, model, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        line = ProgressLine(3)
        line.update(1)
        print_message("Epoch 1: something happened")
        line.update(2)
        line.finish(3)
        rows = [row.split("\r")[-1].strip() for row in terminal.getvalue().split("\n")]
        assert rows[0] == "Epoch 1: something happened"
        assert rows[1].startswith("3/3 ━")
        assert rows[2:] == [""]

    def test_at_most_ten_updates_a_second(self, model, monkeypatch):
        clock = itertools.count(0, 0.01)
        monkeypatch.setattr("torchfunc.callbacks.callback_list.time", SimpleNamespace(perf_counter=clock.__next__))
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        reads = []
        read = type(model).get_metrics_result
        monkeypatch.setattr(Model, "get_metrics_result", lambda self: reads.append(1) or read(self))
        x = np.zeros((300, 3), "float32")
        model.fit(x, x[:, :1], batch_size=1)  # three seconds by that clock
        assert 29 <= len(reads) <= 32
        assert len(re.findall(r"\d+/300 ", terminal.getvalue())) <= 34

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


def test_no_output_at_all(model, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdout", None)
    history = model.fit(X, Y, epochs=2, verbose=1).history
    assert len(history["loss"]) == 2
    assert not ProgressLine(2).redraws
    print_message("text")
    # Neither on the descriptors behind it, nor on stderr, where tqdm writes by default.
    assert capfd.readouterr() == ("", "")
