"""Keras' guides "Customizing what happens in fit()" and "Writing a training loop from scratch", against Keras."""

import keras
import numpy as np
import pytest
import torch
from guide_code import FIT, ONE_HOT, WEIGHTS, X, check_alike, drawn, gradients_of, seeded

import torchfunc
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

Y = np.random.default_rng(4).random((len(X), 1)).astype("float32")


def regression(library, base=None):
    inputs = library.Input(shape=(6,))
    hidden = library.layers.Dense(4, activation="tanh")(inputs)
    return seeded((base or library.Model)(inputs, library.layers.Dense(1)(hidden)))


def descend(model, optimizer, loss):
    """What the guides do with a loss."""
    model.zero_grad()
    loss.backward()
    weights = list(model.trainable_weights)
    with torch.no_grad():
        optimizer.apply(gradients_of(weights), weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_first_train_step(weighted):
    def guide(library):
        class CustomModel(library.Model):
            def train_step(self, data):
                x, y, *sample_weight = data
                sample_weight = sample_weight[0] if sample_weight else None
                y_pred = self(x, training=True)
                descend(self, self.optimizer, self.compute_loss(y=y, y_pred=y_pred, sample_weight=sample_weight))
                for metric in self.metrics:
                    if metric.name == "loss":
                        metric.update_state(losses_of(y, y_pred, sample_weight))
                    elif library is keras:
                        metric.update_state(y, y_pred, sample_weight=sample_weight)
                    else:
                        metric.update_state(y, y_pred, sample_weight)
                return {m.name: m.result() for m in self.metrics}

        losses_of = library.losses.MeanSquaredError()
        model = regression(library, CustomModel)
        model.compile(optimizer="adam", loss="mse", metrics=None if weighted else [])
        history = model.fit(X, Y, sample_weight=WEIGHTS if weighted else None, **FIT)
        return history.history, model.get_weights()

    check_alike(guide)


def test_logs_of_several_steps_at_once_are_those_of_the_last():
    class Counting(torchfunc.Model):
        def train_step(self, data):
            self.batches = getattr(self, "batches", 0) + 1
            return {"batches": self.batches}

    model = regression(torchfunc, Counting)
    model.compile("sgd", "mse", steps_per_execution=3)
    seen = []
    hook = torchfunc.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append((batch, dict(logs))))
    history = model.fit(X[:14], Y[:14], batch_size=2, verbose=0, callbacks=[hook])
    assert seen == [(2, {"batches": 3}), (5, {"batches": 6}), (6, {"batches": 7})]
    assert history.history == {"batches": [7]}


def test_own_logs_under_the_names_of_metrics_are_those_of_the_whole_epoch():
    """As in Keras: a step may return the last batch's loss, and the epoch's is the mean that the metric has."""

    class LastLoss(torchfunc.Model):
        def train_step(self, data):
            x, y = data
            loss = self.compute_loss(x, y, self(x))
            self.metrics[0].update_state(loss.detach(), len(x))
            return {"loss": loss.detach()}

    model = regression(torchfunc, LastLoss)
    model.compile("sgd", "mse")
    seen = []
    hook = torchfunc.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[hook]).history
    assert len(set(seen)) == len(seen) == 3
    assert history["loss"] == [pytest.approx(np.mean(seen), rel=1e-5)]


@pytest.mark.parametrize("own_tracker", [False, True])
def test_a_loss_that_no_metric_was_told_of_is_the_steps_own(own_tracker):
    """Keras logs 0, which is what its metric has; here the last batch's loss is not lost."""

    class Untold(torchfunc.Model):
        def train_step(self, data):
            loss = self.compute_loss(data[0], data[1], self(data[0]))
            if own_tracker:
                self.tracker.update_state(loss)
            return {"loss": loss.detach()}

    model = regression(torchfunc, Untold)
    if own_tracker:
        model.tracker = torchfunc.metrics.Mean("loss")
    model.compile("sgd", "mse")
    seen = []
    hook = torchfunc.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[hook]).history
    assert len(set(seen)) == 3
    assert history["loss"] == [pytest.approx(np.mean(seen) if own_tracker else seen[-1], rel=1e-5)]


def test_a_step_that_one_model_was_given():
    model = regression(torchfunc)
    model.compile("sgd", "mse")
    model.train_step = lambda data: {"rows": len(data[0])}
    assert model.fit(X[:8], Y[:8], batch_size=4, verbose=0).history == {"rows": [4]}
    assert model.train_on_batch(X[:3], Y[:3], return_dict=True) == {"rows": 3}
    del model.train_step
    assert list(model.fit(X[:8], Y[:8], verbose=0).history) == ["loss"]


def test_going_lower_level():
    def guide(library):
        class CustomModel(library.Model):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.loss_tracker = library.metrics.Mean(name="loss")
                self.mae_metric = library.metrics.MeanAbsoluteError(name="mae")
                self.loss_fn = library.losses.MeanSquaredError()

            def train_step(self, data):
                x, y = data
                y_pred = self(x, training=True)
                loss = self.loss_fn(y, y_pred)
                descend(self, self.optimizer, loss)
                self.loss_tracker.update_state(loss)
                self.mae_metric.update_state(y, y_pred)
                return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

            def test_step(self, data):
                x, y = data
                y_pred = self(x, training=False)
                self.loss_tracker.update_state(self.loss_fn(y, y_pred))
                self.mae_metric.update_state(y, y_pred)
                return {m.name: m.result() for m in self.metrics}

            @property
            def metrics(self):
                return [self.loss_tracker, self.mae_metric]

        model = regression(library, CustomModel)
        model.compile(optimizer="adam")  # no loss or metrics
        history = model.fit(X, Y, validation_data=(X[:10], Y[:10]), **FIT)
        return history.history, model.evaluate(X, Y, verbose=0, return_dict=True), model.get_weights()

    check_alike(guide)


def test_an_evaluation_step():
    def guide(library):
        class CustomModel(library.Model):
            def test_step(self, data):
                x, y = data
                y_pred = self(x, training=False)
                loss = self.compute_loss(y=y, y_pred=y_pred)
                for metric in self.metrics:
                    if metric.name == "loss":
                        metric.update_state(loss)
                    else:
                        metric.update_state(y, y_pred)
                return {m.name: m.result() for m in self.metrics}

        model = regression(library, CustomModel)
        model.compile(loss="mse")
        return model.evaluate(X, Y, batch_size=8, verbose=0)

    check_alike(guide)


def test_compute_loss_and_compute_metrics():
    def guide(library):
        class CustomModel(library.Model):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.spread = library.metrics.Mean(name="spread")

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                loss = library.ops.mean(library.ops.square(y_pred - y))
                return loss + library.ops.sum(library.ops.square(self.layers[-1].weights[0])) * 0.1

            def compute_metrics(self, x, y, y_pred, sample_weight=None):
                results = super().compute_metrics(x, y, y_pred, sample_weight)
                self.spread.update_state(library.ops.max(y_pred) - library.ops.min(y_pred))
                return {**results, "spread": self.spread.result()}

        model = regression(library, CustomModel)
        model.compile("sgd", metrics=["mae"], loss="mse")
        history = model.fit(X, Y, validation_data=(X, Y), **{**FIT, "batch_size": 24})
        model.reset_metrics()
        return history.history, [metric.name for metric in model.metrics if metric.name != "compile_metrics"][:1]

    check_alike(guide)


def test_predict_step():
    def guide(library):
        class CustomModel(library.Model):
            def predict_step(self, data):
                x = data[0] if isinstance(data, (tuple, list)) else data
                return self(x, training=False) * 2, x

        return regression(library, CustomModel).predict(X, batch_size=7, verbose=0)

    check_alike(guide)


class TestTrainFunction:
    """`make_train_function` and its siblings give the function that the loop calls with each batch."""

    @pytest.mark.parametrize("sets", [False, True])
    def test_it_is_called_with_each_batch(self, sets):
        seen = []

        class Watched(Model):
            def make_train_function(self, force=False):
                if self.train_function is not None and not force:
                    return None
                step = super().make_train_function(force)

                def watched(data):
                    seen.append(len(data[0]))
                    return step(data)

                if not sets:
                    return watched
                self.train_function = watched  # as Keras' own does
                return None

        plain, watched = regression(torchfunc), regression(torchfunc, Watched)
        for model in (plain, watched):
            model.compile("adam", "mse", metrics=["mae"])
        assert watched.fit(X, Y, **FIT).history == plain.fit(X, Y, **FIT).history
        assert seen == [8, 8, 8] * 2
        plain.train_on_batch(X, Y)
        watched.train_on_batch(X, Y)
        assert seen[6:] == [24]
        for a, b in zip(watched.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_functions_as_methods(self):
        class Functions(Model):
            def train_function(self, data):
                x, y = data
                descend(self, self.optimizer, torch.nn.functional.mse_loss(self(x), y))
                return {"rows": len(x)}

            def test_function(self, data):
                return {"rows": len(data[0])}

            def predict_function(self, data):
                return self(data) + 1

        model, plain = regression(torchfunc, Functions), regression(torchfunc)
        for each in (model, plain):
            each.compile("sgd", "mse")
        history = model.fit(X, Y, validation_data=(X, Y), **FIT).history
        plain.fit(X, Y, **FIT)
        assert history == {"rows": [8.0, 8.0], "val_rows": [8.0, 8.0]}
        np.testing.assert_allclose(model.predict(X, verbose=0), plain.predict(X, verbose=0) + 1, rtol=1e-5)
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_functions_that_are_set_last_until_compile(self):
        model = regression(torchfunc)
        model.compile("sgd", "mse", steps_per_execution=2)
        step, seen = model.make_train_function(), []
        model.train_function = lambda data: (seen.append(len(data[0])), step(data))[1]
        assert model.make_train_function() is model.train_function
        model.fit(X, Y, **FIT)
        assert seen == [8, 8, 8] * 2
        model.test_function = 3
        with pytest.raises(TypeError, match=r"test_function is a function of one batch, got 3 \(int\)"):
            model.evaluate(X, Y, verbose=0)
        model.compile("sgd", "mse")
        assert model.train_function is None
        model.evaluate(X, Y, verbose=0)


def gan(library):
    """The guide's last example: two networks, two optimizers."""

    class GAN(library.Model):
        def __init__(self, discriminator, generator, noise):
            super().__init__()
            self.discriminator, self.generator, self.noise = discriminator, generator, noise
            self.d_loss_tracker = library.metrics.Mean(name="d_loss")
            self.g_loss_tracker = library.metrics.Mean(name="g_loss")
            self.built = True

        @property
        def metrics(self):
            return [self.d_loss_tracker, self.g_loss_tracker]

        def compile(self, d_optimizer, g_optimizer, loss_fn):
            super().compile()
            self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

        def train_step(self, real_images):
            if isinstance(real_images, tuple):
                real_images = real_images[0]
            noise = self.noise[: len(real_images)]
            combined = library.ops.concatenate([self.generator(noise), real_images], axis=0)
            labels = library.ops.concatenate([torch.ones(len(noise), 1), torch.zeros(len(noise), 1)], axis=0)
            d_loss = self.loss_fn(labels, self.discriminator(combined))
            descend(self.discriminator, self.d_optimizer, d_loss)
            misleading = torch.zeros(len(noise), 1)
            self.zero_grad()
            g_loss = self.loss_fn(misleading, self.discriminator(self.generator(noise)))
            descend(self.generator, self.g_optimizer, g_loss)
            self.d_loss_tracker.update_state(d_loss)
            self.g_loss_tracker.update_state(g_loss)
            return {"d_loss": self.d_loss_tracker.result(), "g_loss": self.g_loss_tracker.result()}

    dense = library.layers.Dense
    discriminator = library.Sequential([library.Input((6,)), dense(4, "tanh"), dense(1)], name="discriminator")
    generator = library.Sequential([library.Input((2,)), dense(4, "tanh"), dense(6)], name="generator")
    noise = torch.from_numpy(np.random.default_rng(1).random((8, 2)).astype("float32"))
    return GAN(seeded(discriminator), seeded(generator), noise)


def test_a_gan_with_two_optimizers():
    def guide(library):
        model = gan(library)
        model.compile(
            d_optimizer=library.optimizers.Adam(learning_rate=0.003),
            g_optimizer=library.optimizers.Adam(learning_rate=0.003),
            loss_fn=library.losses.BinaryCrossentropy(from_logits=True),
        )
        history = model.fit(X, **FIT)
        return history.history, model.generator.get_weights(), model.discriminator.get_weights()

    check_alike(guide)


class TestLoopsByHand:
    """Loops over batches, as in the guide, and as PyTorch users have them."""

    @pytest.mark.parametrize("call", ["apply", "apply_gradients"])
    def test_metrics_losses_and_optimizers_of_the_library(self, call):
        def guide(library):
            model, found = drawn(library, None), []
            optimizer = library.optimizers.Adam(learning_rate=1e-2)
            loss_fn = library.losses.CategoricalCrossentropy(from_logits=True)
            train_metric, val_metric = library.metrics.CategoricalAccuracy(), library.metrics.CategoricalAccuracy()
            for _ in range(2):
                for start in range(0, 24, 8):
                    x, y = torch.from_numpy(X[start : start + 8]), torch.from_numpy(ONE_HOT[start : start + 8])
                    logits = model(x, training=True)
                    loss = loss_fn(y, logits) + sum(model.losses)
                    model.zero_grad()
                    loss.backward()
                    weights = list(model.trainable_weights)
                    with torch.no_grad():
                        if call == "apply":
                            optimizer.apply(gradients_of(weights), weights)
                        else:
                            optimizer.apply_gradients(zip(gradients_of(weights), weights, strict=True))
                    train_metric.update_state(y, logits)
                    found.append(float(loss.detach()))
                found.append(float(train_metric.result()))
                train_metric.reset_state()
                val_metric.update_state(torch.from_numpy(ONE_HOT), model(torch.from_numpy(X), training=False))
                found.append(float(val_metric.result()))
                val_metric.reset_state()
            return found, model.get_weights()

        check_alike(guide)

    def test_losses_that_layers_add(self):
        def guide(library):
            inputs = library.Input((6,))
            x = library.layers.Dense(4, activity_regularizer="l2", kernel_regularizer="l1")(inputs)
            model = seeded(library.Model(inputs, library.layers.Dense(1)(x)))
            optimizer, loss_fn = library.optimizers.SGD(0.05), library.losses.MeanSquaredError()
            for _ in range(3):
                loss = loss_fn(torch.from_numpy(Y), model(torch.from_numpy(X), training=True))
                descend(model, optimizer, loss + sum(model.losses))
            return len(model.losses), float(loss.detach()), model.get_weights()

        check_alike(guide)

    def test_a_torch_loop_trains_the_same_weights_as_fit(self):
        by_fit, by_hand = regression(torchfunc), regression(torchfunc)
        by_fit.compile(torch.optim.AdamW(by_fit.parameters(), lr=0.01), torch.nn.MSELoss())
        history = by_fit.fit(X, Y, **FIT).history["loss"]
        optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01)
        found = []
        for _ in range(2):
            total = 0.0
            for x, y in torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8
            ):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(by_hand(x), y)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(x)
            found.append(total / len(X))
        assert history == pytest.approx(found, rel=1e-5)
        for a, b in zip(by_fit.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_step_that_extends_the_default_one_outside_of_a_run():
    steps = []

    class Counted(Model):
        def train_step(self, data):
            steps.append("train")
            return super().train_step(data)

        def compute_loss(self, *args, **kwargs):
            steps.append("loss")
            return super().compute_loss(*args, **kwargs)

    inputs = torchfunc.Input((3,))
    model = Counted(inputs, torchfunc.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", metrics=["mae"])
    before = [weight.clone() for weight in model.parameters()]
    logs = model.train_step((torch.ones(4, 3), torch.ones(4, 1)))
    assert steps == ["train", "loss"]
    assert set(logs) == {"loss", "mae"}
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_steps_outside_of_a_run_see_which_weights_are_frozen():
    inputs = torchfunc.Input((3,))
    first = torchfunc.layers.Dense(2)
    model = Model(inputs, torchfunc.layers.Dense(1)(first(inputs)))
    model.compile("sgd", "mse")
    data = torch.ones(4, 3), torch.ones(4, 1)
    model.train_step(data)
    first.trainable = False
    before = first.weight.detach().clone()
    last = model.layers[-1].weight.detach().clone()
    model.train_step(data)
    assert torch.equal(first.weight, before)
    assert not torch.equal(model.layers[-1].weight, last)
