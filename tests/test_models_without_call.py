"""Models that have no `call`, but a `train_step` of their own: autoencoders, GANs, diffusion, distillation."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchfunc import Input, Model, Sequential, layers, metrics, optimizers, random, saving
from torchfunc.models import load_model

X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")


@saving.register_serializable("without_call")
class Adversaries(Model):
    """A GAN with an optimizer for each half, as the guides write it."""

    def __init__(self, generator, critic, **kwargs):
        super().__init__(**kwargs)
        self.generator, self.critic = generator, critic
        self.gap = metrics.Mean(name="gap")

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer

    @property
    def metrics(self):
        return [self.gap]

    def critic_loss(self, real):
        noise = real.flip(0)[:, :3]
        return F.softplus(self.critic(self.generator(noise))).mean() + F.softplus(-self.critic(real)).mean()

    def train_step(self, data):
        for part, optimizer, sign in (
            (self.critic, self.critic_optimizer, 1),
            (self.generator, self.generator_optimizer, -1),
        ):
            self.zero_grad()
            loss = self.critic_loss(data)
            (sign * loss).backward()
            weights = part.trainable_weights
            with torch.no_grad():
                optimizer.apply([weight.value.grad for weight in weights], weights)
        self.gap.update_state(loss)
        return {"gap": self.gap.result()}

    def test_step(self, data):
        self.gap.update_state(self.critic_loss(data))
        return {"gap": self.gap.result()}

    def get_config(self):
        parts = {"generator": self.generator, "critic": self.critic}
        return {**super().get_config(), **{key: saving.serialize_keras_object(part) for key, part in parts.items()}}


def adversaries():
    torch.manual_seed(0)
    generator = Sequential([Input((3,)), layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dense(5)])
    critic = Sequential([Input((5,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    model = Adversaries(generator, critic, name="gan")
    model.compile(optimizers.SGD(0.1), optimizers.SGD(0.2))
    return model


def test_training_is_that_of_a_loop_by_hand():
    model = adversaries()
    by_hand = copy.deepcopy(model)
    rates = {by_hand.critic: (0.2, 1), by_hand.generator: (0.1, -1)}
    expected = []
    by_hand.train()
    for batch in np.split(X, 3):
        for part, (rate, sign) in rates.items():
            weights = list(part.parameters())
            loss = by_hand.critic_loss(torch.from_numpy(batch))
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data -= sign * rate * gradient
        expected.append(loss.item())
    history = model.fit(X, batch_size=4, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["gap"], [np.mean(expected)], rtol=1e-5)
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)


def test_evaluation_by_its_own_step_and_no_prediction():
    model = adversaries()
    expected = model.eval().critic_loss(torch.from_numpy(X)).item()
    assert model.evaluate(X, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert model.fit(X, validation_data=(X, None), verbose=0).history["val_gap"][0] != pytest.approx(expected)
    for call in (model, model.predict):
        with pytest.raises(NotImplementedError, match=r"'gan' cannot be called, since Adversaries has no `call`"):
            call(X)
    with pytest.raises(NotImplementedError, match="has no `call`"):
        model(Input((5,)))


@pytest.mark.parametrize("ending", ["keras", "torchfunc", "weights.h5", "safetensors"])
def test_files(ending, tmp_path):
    model = adversaries()
    model.fit(X, verbose=0)
    path = tmp_path / f"gan.{ending}"
    if ending in ("keras", "torchfunc"):
        model.save(path)
        with pytest.warns(UserWarning, match="'gan' is not compiled, since only Adversaries knows"):
            loaded = load_model(path)
    else:
        model.save_weights(path)
        loaded = adversaries()
        loaded.load_weights(path)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    loaded.compile(optimizers.SGD(0.1), optimizers.SGD(0.2))
    assert loaded.evaluate(X, verbose=0) == model.evaluate(X, verbose=0)
    loaded.fit(X, verbose=0)


def test_parts_are_built_by_their_first_step():
    """Here an evaluation: what it makes can be trained afterwards."""

    class Denoiser(Model):
        def __init__(self):
            super().__init__()
            self.network = nn.ModuleList([layers.Dense(5)])
            self.average = Sequential([layers.Dense(5)])

        def loss_of(self, data):
            noise = random.normal(data.shape, seed=1)
            return self.compute_loss(y=noise, y_pred=self.average(self.network[0](data + noise)))

        def train_step(self, data):
            weights = self.trainable_weights
            self.optimizer.apply(torch.autograd.grad(self.loss_of(data), weights), weights)
            return {"loss": 0.0}

        def test_step(self, data):
            return {"loss": self.loss_of(data)}

    model = Denoiser()
    model.compile("sgd", "mse")
    before = model.evaluate(X, verbose=0)
    model.fit(X, epochs=3, verbose=0)
    assert model.evaluate(X, verbose=0) < before
    assert len(model.weights) == 4


def test_what_compile_was_given_as_the_loss():
    """Steps of diffusion models call `self.loss`."""

    def loss(y_true, y_pred):
        return (y_true - y_pred).abs().mean()

    model = adversaries()
    assert model.loss is None
    Model.compile(model, "sgd", loss)
    assert model.loss is loss
    assert copy.deepcopy(model).loss is loss
    module = nn.L1Loss()
    Model.compile(model, "sgd", module)
    assert model.loss is module
    assert module not in model.children()

    class Holding(Model):
        def __init__(self):
            super().__init__()
            self.loss = module

    holding = Holding()
    holding.compile("sgd", "mse")
    assert holding.loss is module
