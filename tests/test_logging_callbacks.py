"""What callbacks write and draw: CSV files beside Keras', TensorBoard's files, curves."""

import sys

import keras
import numpy as np
import pytest
from scripted_training import play

from torchfunc import callbacks, layers, optimizers
from torchfunc.models import Model

X = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
Y = X[:, :2]


def make():
    inputs = layers.Input((3,))
    model = Model(inputs, layers.Dense(2)(layers.Dense(4, activation="relu")(inputs)))
    model.compile(optimizers.SGD(0.01), "mse", metrics=["mae"])
    return model


class TestCSVLogger:
    def test_a_file_with_other_columns_keeps_them(self, tmp_path):
        path = tmp_path / "log.csv"
        make().fit(X, Y, verbose=0, callbacks=[callbacks.CSVLogger(path, append=True)])
        model = make()
        model.compile("sgd", "mse", metrics=["mse"])
        with pytest.warns(UserWarning, match=r"log.csv has no columns for mse, which are left out") as caught:
            model.fit(X, Y, epochs=2, verbose=0, callbacks=[callbacks.CSVLogger(path, append=True)])
        assert len(caught) == 1
        rows = [line.split(",") for line in path.read_text().splitlines()]
        assert rows[0] == ["epoch", "loss", "mae", "val_loss", "val_mae"]
        assert [(row[0], row[2] == "NA", len(row)) for row in rows[1:]] == [
            ("0", False, 5),
            ("0", True, 5),
            ("1", True, 5),
        ]

    def test_the_working_directory_may_change(self, tmp_path, monkeypatch):
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        leave = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: monkeypatch.chdir(tmp_path / "other"))
        make().fit(X, Y, epochs=3, verbose=0, callbacks=[callbacks.CSVLogger("log.csv"), leave])
        assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
        assert list((tmp_path / "other").iterdir()) == []

    @pytest.mark.parametrize("options", [{}, {"separator": ";"}, {"append": True}])
    @pytest.mark.parametrize(
        "epochs",
        [
            [{"loss": 0.1 + 0.2, "accuracy": 1.0}, {"loss": 1e-9, "accuracy": 0.5}],
            [{"loss": 1.0, "val_loss": float("nan")}, {"loss": 2.0}],
            [{"loss": np.arange(3.0), "name": "a;b,c", "zero": np.array(1.0)}],
            [{}],
        ],
    )
    def test_same_file_as_keras(self, options, epochs, tmp_path):
        written = []
        for library in (callbacks, keras.callbacks):
            path = tmp_path / library.__name__
            for _ in range(2):  # the second run begins anew, or appends
                logger = library.CSVLogger(path, **options)
                play(logger, epochs)
            play(logger, epochs)
            written.append(path.read_bytes())
        assert written[0] == written[1]
        assert len(written[0].splitlines()) == 1 + len(epochs) * (3 if "append" in options else 1)

    def test_appending_to_a_file_of_another_run(self, tmp_path):
        path = tmp_path / "log.csv"
        path.write_text("epoch,loss,val_loss\r\n0,1.0,NA\r\n", newline="")
        play(callbacks.CSVLogger(path, append=True), [{"loss": 2.0}])
        assert path.read_bytes() == b"epoch,loss,val_loss\r\n0,1.0,NA\r\n0,2.0,NA\r\n"

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            make().fit(X, Y, verbose=0, callbacks=callbacks.CSVLogger(tmp_path / "none" / "log.csv"))


def events(folder):
    """All that TensorBoard finds in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    found.Reload()
    return found


def scalars(folder, tag):
    return {event.step: event.value for event in events(folder).Scalars(tag)}


class TestTensorBoard:
    def test_numbers_of_epochs(self, tmp_path):
        model = make()
        board = callbacks.TensorBoard(tmp_path, write_steps_per_second=True)
        history = model.fit(X, Y, epochs=2, batch_size=5, validation_split=0.5, verbose=0, callbacks=board).history
        train, validation = events(tmp_path / "train"), events(tmp_path / "validation")
        names = ["epoch_learning_rate", "epoch_loss", "epoch_mae", "epoch_steps_per_second"]
        assert sorted(train.Tags()["scalars"]) == names
        assert sorted(validation.Tags()["scalars"]) == [
            "epoch_loss",
            "epoch_mae",
            "evaluation_loss_vs_iterations",
            "evaluation_mae_vs_iterations",
        ]
        for name in ("loss", "mae"):
            assert scalars(tmp_path / "train", f"epoch_{name}") == pytest.approx(dict(enumerate(history[name])))
            expected = history[f"val_{name}"]
            assert scalars(tmp_path / "validation", f"epoch_{name}") == pytest.approx(dict(enumerate(expected)))
            found = scalars(tmp_path / "validation", f"evaluation_{name}_vs_iterations")
            assert found == pytest.approx(dict(zip([2, 4], expected, strict=True)))
        assert scalars(tmp_path / "train", "epoch_learning_rate") == pytest.approx({0: 0.01, 1: 0.01})

    @pytest.mark.parametrize(("update_freq", "steps"), [("batch", range(1, 9)), (3, [3, 6])])
    def test_numbers_of_batches(self, update_freq, steps, tmp_path):
        losses = []
        watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))
        board = callbacks.TensorBoard(tmp_path, update_freq=update_freq, write_steps_per_second=True)
        make().fit(X, Y, epochs=2, batch_size=5, verbose=0, callbacks=[watch, board])
        found = scalars(tmp_path / "train", "batch_loss")
        assert found == pytest.approx({step: losses[step - 1] for step in steps})
        assert all(speed > 0 for speed in scalars(tmp_path / "train", "batch_steps_per_second").values())

    def test_weights(self, tmp_path):
        model = make()
        board = callbacks.TensorBoard(tmp_path, histogram_freq=2, write_images=True)
        model.fit(X, Y, epochs=3, verbose=0, callbacks=board)
        found = events(tmp_path / "train")
        weights = ["dense/weight", "dense/bias", "dense_1/weight", "dense_1/bias"]
        assert sorted(found.Tags()["histograms"]) == sorted(f"{name}/histogram" for name in weights)
        assert sorted(found.Tags()["images"]) == sorted(f"{name}/image" for name in weights)
        first, last = found.Histograms("dense/weight/histogram")
        assert (first.step, last.step) == (0, 2)
        weight = model.get_layer("dense").weight
        assert last.histogram_value.num == weight.numel()
        assert last.histogram_value.sum == pytest.approx(weight.sum().item(), rel=1e-5)
        (image, _) = found.Images("dense/weight/image")
        assert (image.height, image.width) == (3, 4)  # torch keeps (4, 3)

    def test_images_of_kernels(self, tmp_path):
        inputs = layers.Input((8, 8, 3))
        x = layers.Conv2D(2, 3)(inputs)
        model = Model(inputs, layers.Conv2D(1, 2)(x))
        model.compile("sgd", "mse")
        board = callbacks.TensorBoard(tmp_path, histogram_freq=1, write_images=True, write_graph=False)
        model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 5, 5, 1)), verbose=0, callbacks=board)
        assert len(events(tmp_path / "train").Tags()["images"]) == 4

    def test_graph(self, tmp_path):
        from tensorboard.compat.proto.graph_pb2 import GraphDef

        model = make()
        model.fit(X, Y, verbose=0, callbacks=callbacks.TensorBoard(tmp_path))
        graph = events(tmp_path / "train").Graph()
        assert isinstance(graph, GraphDef)
        nodes = {node.name: (node.op, list(node.input)) for node in graph.node}
        assert nodes["dense_1"] == ("Dense", ["dense"])
        assert len(nodes) == len(model.graph.nodes)

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"profile_batch": 2}, "torch.profiler"),
            ({"embeddings_freq": 1}, "add_embedding"),
            ({"update_freq": "step"}, "'step'"),
            ({"update_freq": 0}, "got 0"),
        ],
    )
    def test_what_is_not_there(self, options, part, tmp_path):
        with pytest.raises(ValueError, match=part):
            callbacks.TensorBoard(tmp_path, **options)

    def test_without_tensorboard(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(ImportError, match=r"pip install 'torchfunc\[tensorboard\]'"):
            callbacks.TensorBoard()


class TestPlot:
    @pytest.fixture(autouse=True)
    def no_windows(self):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        yield
        matplotlib.pyplot.close("all")

    def test_training_and_validation_share_their_axes(self):
        run = {"epochs": 4, "validation_split": 0.2, "validation_freq": 2, "verbose": 0}
        history = make().fit(X, Y, **run)
        loss, mae = history.plot()
        assert [axes.get_ylabel() for axes in (loss, mae)] == ["loss", "mae"]
        training, validation = mae.get_lines()
        assert [line.get_label() for line in (training, validation)] == ["training", "validation"]
        assert training.get_xydata().tolist() == [[n, value] for n, value in enumerate(history.history["mae"], 1)]
        values = history.history["val_mae"]
        assert validation.get_xydata().tolist() == [[2, values[0]], [4, values[1]]]
        assert loss.figure is mae.figure

    def test_some_of_them(self):
        history = make().fit(X, Y, epochs=2, verbose=0)
        (mae,) = history.plot("mae")
        assert len(mae.get_lines()) == 1
        assert len(history.plot(["mae", "loss"])) == 2
        with pytest.raises(ValueError, match="no curve of 'acc'; there are 'loss', 'mae'"):
            history.plot("acc")
        with pytest.raises(ValueError, match="no epoch was logged"):
            callbacks.History().plot()

    def test_what_is_no_number_is_left_out(self):
        history = callbacks.History()
        play(history, [{"loss": 1.0, "note": "x", "array": np.ones(2)}])
        assert len(history.plot()) == 1

    def test_without_matplotlib(self, monkeypatch):
        history = make().fit(X, Y, verbose=0)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"pip install 'torchfunc\[plot\]'"):
            history.plot()
