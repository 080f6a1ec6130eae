"""The learning rate in `fit`: set by Keras' callbacks, and by torch's schedulers."""

from functools import partial

import keras
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from training_parity import X, Y, twins

from torchfunc import callbacks, layers, optimizers
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
RUN = {"batch_size": 10, "verbose": 0, "shuffle": False}


class TestBesideKeras:
    @pytest.mark.parametrize(
        "watch",
        [
            lambda library: library.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
            lambda library: library.ReduceLROnPlateau("loss", patience=1, min_delta=10.0, factor=0.3),
        ],
    )
    def test_same_rates_and_losses(self, watch):
        mine, theirs = twins()
        mine.compile(optimizers.SGD(0.05), "mse")
        theirs.compile(keras.optimizers.SGD(0.05), "mse")
        found = mine.fit(X, Y, epochs=4, callbacks=watch(callbacks), **RUN).history
        expected = theirs.fit(X, Y, epochs=4, callbacks=[watch(keras.callbacks)], **RUN).history
        assert list(found) == list(expected) == ["loss", "learning_rate"]
        assert found["learning_rate"] == expected["learning_rate"]
        assert found["learning_rate"][0] > found["learning_rate"][-1]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)

    @pytest.mark.parametrize("watch", [callbacks.LearningRateScheduler(lambda epoch: 0.1), None])
    def test_an_optimizer_with_a_schedule(self, watch):
        mine, _ = twins()
        mine.compile(optimizers.SGD(lambda step: 0.1), "mse")
        watch = watch or callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0)
        with pytest.raises(TypeError, match="schedule"):
            mine.fit(X, Y, epochs=3, callbacks=watch, **RUN)

    @pytest.mark.parametrize("swap_on_epoch", [False, True])
    def test_swapped_averages(self, swap_on_epoch):
        mine, theirs = twins()
        options = {"learning_rate": 0.05, "use_ema": True, "ema_momentum": 0.8}
        mine.compile(optimizers.SGD(**options), "mse")
        theirs.compile(keras.optimizers.SGD(**options), "mse")
        seen, expected_seen = [], []

        def weights(model, into):
            return {"on_epoch_end": lambda epoch, logs: into.extend(value.copy() for value in model.get_weights())}

        run = {**RUN, "epochs": 3, "validation_data": (X[:20], Y[:20])}
        after = callbacks.LambdaCallback(**weights(mine, seen))
        history = mine.fit(X, Y, callbacks=[callbacks.SwapEMAWeights(swap_on_epoch), after], **run)
        after = keras.callbacks.LambdaCallback(**weights(theirs, expected_seen))
        expected = theirs.fit(X, Y, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch), after], **run)
        for name, values in history.history.items():
            assert values == pytest.approx(expected.history[name], rel=1e-5), name
        for value, other in zip([*seen, *mine.get_weights()], [*expected_seen, *theirs.get_weights()], strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)
        assert abs(history.history["val_loss"][0] - mine.evaluate(X[:20], Y[:20], verbose=0)) > 1e-3


class TestSwapEMAWeights:
    def test_in_evaluate_and_predict(self):
        mine, _ = twins()
        mine.compile(optimizers.SGD(0.05, use_ema=True), "mse")
        swap = callbacks.SwapEMAWeights()
        mine.evaluate(X, Y, verbose=0, callbacks=swap)  # nothing was trained yet
        mine.train_on_batch(X[:10], Y[:10])
        mine.train_on_batch(X[:10], Y[:10])
        before = mine.predict(X, verbose=0)
        averaged = mine.predict(X, verbose=0, callbacks=swap)
        assert np.array_equal(mine.predict(X, verbose=0), before)
        mine.optimizer.finalize_variable_values()
        assert np.array_equal(mine.predict(X, verbose=0), averaged)
        assert not np.array_equal(averaged, before)

    def test_stopped_early_the_averages_stay(self):
        mine, _ = twins()
        mine.compile(optimizers.SGD(0.05, use_ema=True), "mse")
        averages = []
        watch = [
            callbacks.SwapEMAWeights(swap_on_epoch=True),
            callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: averages.append(mine.get_weights())),
            callbacks.EarlyStopping("loss", min_delta=100.0),
        ]
        mine.fit(X, Y, epochs=9, callbacks=watch, **RUN)
        assert len(averages) == 2
        assert all(map(np.array_equal, mine.get_weights(), averages[-1]))

    def test_an_optimizer_without_averages(self):
        mine, _ = twins()
        mine.compile("sgd", "mse")
        with pytest.raises(ValueError, match="use_ema=True"):
            mine.evaluate(X, Y, verbose=0, callbacks=callbacks.SwapEMAWeights())


def line():
    inputs = layers.Input((5,))
    return Model(inputs, layers.Dense(1)(inputs))


def by_hand(make_scheduler, on, epochs=4, lr=0.1, losses=None):
    """The rates that a torch loop with this scheduler has after each epoch, and their number of steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = make_scheduler(optimizer)
    rates = []
    for epoch in range(epochs):
        rates.append(0.0)
        for _ in range(5):
            optimizer.step()
            if on == "batch":
                rates[-1] = optimizer.param_groups[0]["lr"]
                scheduler.step()
        if on == "epoch":
            rates[-1] = optimizer.param_groups[0]["lr"]
            scheduler.step(*([] if losses is None else [losses[epoch]]))
    return rates, optimizer.param_groups[0]["lr"]


class TestTorchLRScheduler:
    @pytest.mark.parametrize(
        ("make_scheduler", "on"),
        [
            (partial(lr_scheduler.StepLR, step_size=2, gamma=0.5), "epoch"),
            (partial(lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=20), "batch"),
            (partial(lr_scheduler.CosineAnnealingLR, T_max=20), "batch"),
        ],
    )
    @pytest.mark.parametrize("kind", ["own", "factory", "ours"])
    def test_as_in_a_loop_by_hand(self, make_scheduler, on, kind):
        model = line()
        optimizer = optimizers.Adam(0.1) if kind == "ours" else torch.optim.SGD(model.parameters(), lr=0.1)
        model.compile(optimizer, "mse")
        schedule = callbacks.TorchLRScheduler(make_scheduler(optimizer) if kind == "own" else make_scheduler, on)
        rates = []
        watch = callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
        )
        model.fit(X, Y, epochs=4, callbacks=[watch, schedule], **RUN)
        expected, last = by_hand(make_scheduler, on)
        assert rates[4::5] == pytest.approx(expected, rel=1e-6)
        assert float(model.optimizer.learning_rate) == pytest.approx(last, rel=1e-6)

    def test_one_that_watches_a_number(self):
        model = line()
        model.compile("sgd", "mse")
        make_scheduler = partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0, threshold_mode="abs")
        schedule = callbacks.TorchLRScheduler(make_scheduler, monitor="loss")
        history = model.fit(X, Y, epochs=4, callbacks=schedule, **RUN).history
        expected, last = by_hand(make_scheduler, "epoch", lr=0.01, losses=history["loss"])
        assert history["learning_rate"] == pytest.approx(expected, rel=1e-6)
        assert float(model.optimizer.learning_rate) == pytest.approx(last, rel=1e-6)
        with pytest.raises(
            ValueError, match="watches 'val_loss', which is not in the logs; there are 'loss', 'learning_rate'"
        ):
            model.fit(X, Y, callbacks=callbacks.TorchLRScheduler(make_scheduler), **RUN)

    def test_another_optimizer(self):
        model = line()
        model.compile(torch.optim.SGD(model.parameters(), lr=0.1), "mse")
        other = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match="StepLR belongs to an optimizer that the model is not trained with"):
            model.fit(X, Y, callbacks=callbacks.TorchLRScheduler(lr_scheduler.StepLR(other, 1)), **RUN)

    def test_when(self):
        with pytest.raises(ValueError, match="on='step'"):
            callbacks.TorchLRScheduler(partial(lr_scheduler.StepLR, step_size=1), on="step")
