"""Keras' guide "Transfer learning & fine-tuning": what is frozen stays as it is, in every respect, as with Keras."""

import copy

import keras
import numpy as np
import pytest
import torch
from guide_code import FIT, LABELS, X, check_alike, seeded

import torchfunc
from torchfunc import callbacks, layers, optimizers
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LOSS = "sparse_categorical_crossentropy"


def base_of(library):
    """A network to reuse, with statistics of its own in its batch norm."""
    inputs = library.Input((6,))
    x = library.layers.Dense(5, activation="tanh", name="first")(inputs)
    x = library.layers.BatchNormalization(momentum=0.5, name="norm")(x)
    return seeded(library.Model(inputs, library.layers.Dense(4, name="second")(x), name="base"))


def with_head(library, base, training=None):
    inputs = library.Input((6,))
    x = base(inputs) if training is None else base(inputs, training=training)
    return seeded(library.Model(inputs, library.layers.Dense(3, activation="softmax", name="head")(x)))


def counts(model):
    return [sum(np.prod(w.shape) for w in of) for of in (model.trainable_weights, model.non_trainable_weights)]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_workflow_of_the_guide(optimizer):
    """Freeze, train a new end, unfreeze, compile again with a low rate, train it all."""

    def guide(library):
        base = base_of(library)
        base.trainable = False
        model = with_head(library, base)
        make, found = getattr(library.optimizers, optimizer), [counts(model)]
        model.compile(make(0.05), LOSS, metrics=["accuracy"])
        before = base.get_weights()
        found += [model.fit(X, LABELS, **FIT).history, model.evaluate(X, LABELS, verbose=0)]
        for old, new in zip(before, base.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        base.trainable = True
        model.compile(make(0.01), LOSS, metrics=["accuracy"])
        found += [counts(model), model.fit(X, LABELS, **FIT).history, model.evaluate(X, LABELS, verbose=0)]
        return found, model.get_weights()

    check_alike(guide, rel=1e-3)


def test_a_base_called_with_training_false_keeps_its_statistics():
    """So the guide promises. Keras 3 forgets what the call said, so there the norm itself is frozen."""

    def guide(library):
        base = base_of(library)
        model = with_head(library, base, training=False)
        if library is keras:
            base.get_layer("norm").trainable = False
        else:
            for weight in base.get_layer("norm").parameters():
                weight.requires_grad_(False)
        model.compile("sgd", LOSS)
        return model.fit(X, LABELS, **FIT).history, model.get_weights()

    check_alike(guide)


def test_layers_frozen_one_by_one():
    def guide(library):
        base = base_of(library)
        for layer in base.layers[:-1]:
            layer.trainable = False
        model = with_head(library, base)
        model.compile(library.optimizers.RMSprop(0.01), LOSS)
        history = model.fit(X, LABELS, **FIT).history
        assert base.trainable
        return counts(model), [len(layer.trainable_weights) for layer in model.layers], history, model.get_weights()

    check_alike(guide, rel=1e-3)


def test_a_frozen_model_freezes_what_is_in_it():
    def guide(library):
        base = base_of(library)
        model, found = with_head(library, base), []
        model.trainable = False
        found.append([base.trainable, base.get_layer("norm").trainable, *counts(model)])
        base.trainable = True
        found.append([base.get_layer("norm").trainable, len(base.trainable_weights)])
        model.trainable = True
        return [*found, counts(model)]

    check_alike(guide)


@pytest.mark.parametrize("frozen", ["base", "norm"])
def test_batch_norm_runs_in_inference_mode(frozen):
    def guide(library):
        base = base_of(library)
        model = with_head(library, base)
        (base if frozen == "base" else base.get_layer("norm")).trainable = False
        norm = base.get_layer("norm")
        model.compile("sgd", LOSS)
        before = norm.get_weights()
        output = model(torch.from_numpy(X), training=True)
        history = model.fit(X, LABELS, **FIT).history
        for old, new in zip(before, norm.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        return output, history

    check_alike(guide)


def test_frozen_weights_have_neither_decay_nor_penalty_of_their_own():
    """Not even weight decay, which needs no gradient, and constraints leave them as they are."""

    def guide(library):
        inputs = library.Input((6,))
        hidden = library.layers.Dense(5, kernel_regularizer="l2", kernel_constraint="max_norm")
        model = seeded(library.Model(inputs, library.layers.Dense(3, activation="softmax")(hidden(inputs))))
        hidden.trainable = False
        model.compile(library.optimizers.AdamW(0.05, weight_decay=0.3), LOSS)
        return model.evaluate(X, LABELS, verbose=0), model.fit(X, LABELS, **FIT).history, hidden.get_weights()

    check_alike(guide)


def test_the_optimizers_state_is_that_of_what_trains():
    def sizes(model):
        return sorted(int(np.prod(v.shape)) for v in model.optimizer.variables if tuple(v.shape))

    def guide(library):
        base = base_of(library)
        base.trainable = False
        model = with_head(library, base)
        model.compile("adam", LOSS)
        model.fit(X, LABELS, **FIT)
        found = [sizes(model)]
        base.trainable = True
        model.compile("adam", LOSS)
        model.fit(X, LABELS, **FIT)
        return [*found, sizes(model)]

    check_alike(guide)


class TestAfterCompile:
    """Freezing counts at once, where Keras wants `compile` to be called again."""

    def model(self):
        base = base_of(torchfunc)
        model = with_head(torchfunc, base)
        model.compile(optimizers.Adam(0.01, weight_decay=0.1), LOSS)
        model.fit(X, LABELS, **FIT)
        return model, base

    def test_freezing(self):
        model, base = self.model()
        again = copy.deepcopy(model)
        base.trainable = False
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        found = model.fit(X, LABELS, **FIT).history
        torch.testing.assert_close(base.state_dict(), before, rtol=0, atol=0)
        # The head goes on with the moments it had: those of a loop that leaves the base alone.
        inner = again.get_layer("base")
        optimizer, head = again.optimizer, list(again.get_layer("head").parameters())
        inner.trainable = False
        for _ in range(FIT["epochs"]):
            for start in range(0, len(X), FIT["batch_size"]):
                rows = slice(start, start + FIT["batch_size"])
                loss = torchfunc.losses.get(LOSS)(torch.from_numpy(LABELS[rows]), again(torch.from_numpy(X[rows])))
                optimizer.apply(torch.autograd.grad(loss.mean(), head), head)
        assert found["loss"][-1] > 0
        for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("steps", [1, 2])
    def test_in_a_callback(self, steps):
        """As of the next epoch; Keras on torch does the same."""

        def guide(library):
            base = base_of(library)
            model, found = with_head(library, base), []

            def freeze(epoch, logs):
                base.trainable = False
                found.append(base.get_weights())

            at_once = {} if library is keras else {"steps_per_execution": steps}
            model.compile(library.optimizers.SGD(0.05), LOSS, **at_once)
            watch = library.callbacks.LambdaCallback(on_epoch_end=freeze)
            history = model.fit(X, LABELS, callbacks=[watch], **{**FIT, "epochs": 3})
            for old, new in zip(found[0], base.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)
            return history.history, model.get_weights()

        check_alike(guide)

    def test_freeing_in_a_callback_wants_compile_too(self):
        base = base_of(torchfunc)
        base.trainable = False
        model = with_head(torchfunc, base)
        model.compile("adam", LOSS)

        def free(epoch, logs):
            base.trainable = True

        with pytest.raises(ValueError, match="compile"):
            model.fit(X, LABELS, callbacks=callbacks.LambdaCallback(on_epoch_end=free), **FIT)

    def test_unfreezing_wants_compile_again(self):
        base = base_of(torchfunc)
        base.trainable = False
        model = with_head(torchfunc, base)
        model.compile("adam", LOSS)
        model.fit(X, LABELS, **FIT)
        base.trainable = True
        with pytest.raises(ValueError, match="compile"):
            model.fit(X, LABELS, **FIT)
        model.compile("adam", LOSS)
        model.fit(X, LABELS, **FIT)

    def test_the_summary_follows(self, capsys):
        model, base = self.model()
        for frozen, trainable in ((True, 15), (False, 35 + 10 + 24 + 15)):
            base.trainable = not frozen
            model.summary()
            assert f"Trainable params: {trainable} " in capsys.readouterr().out


def test_torch_modules_freeze_and_unfreeze():
    """Modules of torch's own in a drawn model: `requires_grad_`, and `trainable` of what holds them."""
    inputs = torchfunc.Input((6,))
    linear = torch.nn.Linear(6, 5)
    inner = Model(inputs, torch.nn.BatchNorm1d(5)(linear(inputs)))
    outer_inputs = torchfunc.Input((6,))
    model = Model(outer_inputs, layers.Dense(3, activation="softmax")(inner(outer_inputs)))
    inner.trainable = False
    assert not linear.weight.requires_grad
    model.compile(optimizers.AdamW(0.05, weight_decay=0.3), LOSS)
    before = linear.weight.clone()
    model.fit(X, LABELS, **FIT)
    assert torch.equal(linear.weight, before)
    inner.trainable = True
    model.compile(optimizers.AdamW(0.05, weight_decay=0.3), LOSS)
    model.fit(X, LABELS, **FIT)
    assert not torch.equal(linear.weight, before)


def test_a_layer_made_frozen():
    def guide(library):
        inputs = library.Input((6,))
        x = library.layers.Dense(5, trainable=False)(inputs)
        x = library.layers.BatchNormalization(trainable=False)(x)
        model = seeded(library.Model(inputs, library.layers.Dense(3, activation="softmax")(x)))
        model.compile("rmsprop", LOSS)
        return counts(model), model.fit(X, LABELS, **FIT).history

    check_alike(guide)
