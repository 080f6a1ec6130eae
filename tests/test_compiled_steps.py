"""Steps compiled as a whole: the numbers of eager steps, no graph too many, and what happens when there can be none."""

import copy
import random

import numpy as np
import pytest
import torch

import torchfunc
from torchfunc import callbacks, layers, losses, metrics, optimizers
from torchfunc.models import Model
from torchfunc.training import compiled_step
from torchfunc.training.compiled_step import MAX_GRAPHS, CompiledStep
from torchfunc.training.compiler_process import CompilerProcess
from torchfunc.training.payback import Payback

# What torch says of its own code while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function"),
]

ROWS, BATCH = 43, 8
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, 6))
LABELS = RNG.integers(0, 3, ROWS)
WEIGHTS = RNG.random(ROWS)


@pytest.fixture
def double():
    before = torchfunc.config.floatx()
    torchfunc.config.set_floatx("float64")
    yield
    torchfunc.config.set_floatx(before)


def classifier(**settings):
    """A network with all that has state or chance: batch norm, dropout, a shared layer, a penalty, a constraint."""
    torch.manual_seed(0)
    shared = layers.Dense(8, activation="tanh", kernel_constraint="max_norm")
    inputs = layers.Input((6,))
    hidden = layers.Dense(8, kernel_regularizer="l2")(inputs)
    hidden = layers.Dropout(0.3)(layers.BatchNormalization()(shared(shared(hidden))))
    model = Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    arguments = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **settings}
    model.compile(**arguments)
    return model


def fit(model, epochs=4, **arguments):
    torch.manual_seed(1)
    return model.fit(X, LABELS, batch_size=BATCH, epochs=epochs, verbose=0, sample_weight=WEIGHTS, **arguments).history


def state(model):
    found = {**model.state_dict(), **{str(i): v for i, v in enumerate(model.optimizer.variables)}}
    return {name: value.clone() for name, value in found.items()}


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(other[name]), **tolerance, msg=name)


def graphs(model):
    return sum(step.graphs for steps in model._training_settings.graphs.values() for step in steps.values())


CLOSE = {"rtol": 1e-10, "atol": 1e-10}
OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1, momentum=0.9, clipvalue=0.01),
    "RMSprop": lambda: optimizers.RMSprop(0.01, use_ema=True),
    "Adam": lambda: optimizers.Adam(0.01, global_clipnorm=0.1),
    "AdamW": lambda: optimizers.AdamW(0.01, clipnorm=0.1),
}


# An optimizer keeps its learning rate in float32, as Keras does.
TENTH, HUNDREDTH = float(np.float32(0.1)), float(np.float32(0.01))


def sgd_by_hand(weight, gradient, kept, step):
    kept["velocity"] = 0.9 * kept.get("velocity", 0) - TENTH * gradient
    weight += kept["velocity"]


def rmsprop_by_hand(weight, gradient, kept, step):
    kept["square"] = 0.9 * kept.get("square", 0) + 0.1 * gradient**2
    weight -= HUNDREDTH * gradient / (kept["square"] + 1e-7).sqrt()


def adam_by_hand(weight, gradient, kept, step):
    kept["mean"] = 0.9 * kept.get("mean", 0) + 0.1 * gradient
    kept["square"] = 0.999 * kept.get("square", 0) + 0.001 * gradient**2
    rate = HUNDREDTH * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
    weight -= rate * kept["mean"] / (kept["square"].sqrt() + 1e-7)


def adamw_by_hand(weight, gradient, kept, step):
    weight *= 1 - HUNDREDTH * 0.004
    adam_by_hand(weight, gradient, kept, step)


def clipped_together(gradients):
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    return [gradient * min(1.0, 0.1 / norm) for gradient in gradients]


# The optimizer, what it does to gradients first, and its rule.
BY_HAND = {
    "SGD": (
        OPTIMIZERS["SGD"],
        lambda gradients: [gradient.clamp(-0.01, 0.01) for gradient in gradients],
        sgd_by_hand,
    ),
    "RMSprop": (lambda: optimizers.RMSprop(0.01), lambda gradients: gradients, rmsprop_by_hand),
    "Adam": (OPTIMIZERS["Adam"], clipped_together, adam_by_hand),
    "AdamW": (
        OPTIMIZERS["AdamW"],
        lambda gradients: [gradient * min(1.0, 0.1 / gradient.norm()) for gradient in gradients],
        adamw_by_hand,
    ),
}


@pytest.mark.usefixtures("traced", "double")
class TestNumbers:
    @pytest.mark.parametrize(("name", "at_once"), [("SGD", 1), ("RMSprop", 1), ("Adam", 2), ("AdamW", 1)])
    def test_equal_to_eager_steps(self, name, at_once):
        eager, compiled = (
            classifier(
                optimizer=OPTIMIZERS[name](), jit_compile=jit, steps_per_execution=steps, weighted_metrics=["ce"]
            )
            for jit, steps in ((False, 1), (True, at_once))
        )
        assert_same(fit(eager), fit(compiled), **CLOSE)
        assert_same(state(eager), state(compiled), **CLOSE)

    def test_evaluation_and_prediction(self):
        found = []
        for jit in (False, True):
            model = classifier(jit_compile=jit, weighted_metrics=["accuracy"])
            logs = model.evaluate(X, LABELS, BATCH, 0, sample_weight=WEIGHTS, return_dict=True)
            found.append({**logs, "outputs": model.predict(X, BATCH, 0), "batch": model.predict_on_batch(X[:BATCH])})
        assert graphs(model) == 2
        assert_same(*found, **CLOSE)

    @pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
    def test_equal_to_a_loop_by_hand(self, name):
        optimizer, clip, update = BY_HAND[name]
        model = classifier(optimizer=optimizer(), jit_compile=True)
        by_hand = copy.deepcopy(model)
        fit(model, shuffle=False)
        torch.manual_seed(1)
        by_hand.train()
        memory = [{} for _ in by_hand.parameters()]
        batches = [slice(start, start + BATCH) for start in range(0, ROWS, BATCH)] * 4
        for step, rows in enumerate(batches, start=1):
            x, y, w = (torch.from_numpy(part[rows]) for part in (X, LABELS, WEIGHTS))
            likelihood = by_hand(x).gather(1, y[:, None]).squeeze(1)
            loss = -(likelihood.log() * w).mean() + 0.01 * by_hand.get_layer("dense").weight.square().sum()
            by_hand.zero_grad()
            loss.backward()
            with torch.no_grad():
                gradients = clip([weight.grad for weight in by_hand.parameters()])
                for weight, gradient, kept in zip(by_hand.parameters(), gradients, memory, strict=True):
                    update(weight, gradient, kept, step)
                shared = by_hand.get_layer("dense_1").weight
                norms = shared.norm(dim=1, keepdim=True)
                shared *= norms.clamp(max=2) / (norms + 1e-7)
        assert len(batches) == 24
        assert_same(by_hand.state_dict(), model.state_dict(), **CLOSE)

    def test_state_is_live_at_any_moment(self):
        found = []

        class Looks(callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                found[-1].append((state(self.model), logs))

        for jit in (False, True):
            found.append([])
            fit(classifier(optimizer=optimizers.Adam(0.01), jit_compile=jit), epochs=2, callbacks=[Looks()])
        for (one, some_logs), (other, other_logs) in zip(*found, strict=True):
            assert_same(one, other, **CLOSE)
            assert_same(some_logs, other_logs, **CLOSE)

    def test_a_step_of_the_users_own(self):
        class Doubled(Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return 2 * super().compute_loss(x, y, y_pred, sample_weight)

        inputs = layers.Input((6,))
        outputs = layers.Dense(3, activation="softmax")(inputs)
        eager, compiled = Doubled(inputs, outputs), Doubled(inputs, outputs)
        histories = []
        for model, jit in ((eager, False), (compiled, True)):
            model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit)
            model.set_weights([np.zeros((6, 3)), np.zeros(3)])
            histories.append(fit(model))
        assert_same(*histories, **CLOSE)

    def test_metrics_outside_of_the_step(self):
        torchmetrics = pytest.importorskip("torchmetrics")
        found = [
            fit(classifier(metrics=[torchmetrics.Accuracy("multiclass", num_classes=3), "accuracy"], jit_compile=jit))
            for jit in (False, True)
        ]
        assert_same(*found, **CLOSE)
        assert found[0]["accuracy"] == pytest.approx(found[0]["multiclass_accuracy"])

    # In a graph, torch's Adam corrects for the beginning in single precision.
    @pytest.mark.parametrize(("make", "close"), [(torch.optim.Adam, 1e-5), (torch.optim.RMSprop, 1e-10)])
    def test_torch_optimizers(self, make, close):
        found = []
        for jit in (False, True):
            model = classifier(optimizer=make, jit_compile=jit)
            fit(model, epochs=2)
            model.optimizer.learning_rate = 0.02
            found.append({**fit(model, epochs=2), **state(model)})
        assert_same(*found, rtol=close, atol=close)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_the_real_compiler():
    # (It fails at fusing the constraint with the update of RMSprop.)
    eager, compiled = (classifier(optimizer=OPTIMIZERS["RMSprop"](), jit_compile=jit) for jit in (False, True))
    assert_same(fit(eager), fit(compiled), **CLOSE)
    assert_same(state(eager), state(compiled), **CLOSE)


@pytest.mark.slow
def test_graphs_made_after_the_same_seed():
    # What the compiler cannot name by its content, such as autocast, it names at random.
    for units in (4, 5):
        random.seed(0)
        model = torchfunc.Sequential([layers.Dense(units, "relu"), layers.BatchNormalization(), layers.Dense(3)])
        model.compile(
            "sgd", losses.SparseCategoricalCrossentropy(from_logits=True), precision="bf16-mixed", jit_compile=True
        )
        before = random.getstate()
        model.fit(X, LABELS, batch_size=BATCH, verbose=0)
        assert random.getstate() == before
        assert graphs(model) == 1


def made():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("traced")
class TestGraphs:
    def test_no_graph_after_the_first_epoch(self):
        class Restless(callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.optimizer.learning_rate = 0.1 / (epoch + 2)

        model = classifier(optimizer=optimizers.SGD(0.1), jit_compile=True)
        before = made()
        fit(model, epochs=1, validation_data=(X, LABELS), callbacks=[Restless()])
        first = made()
        assert first - before == 2
        fit(model, epochs=3, validation_data=(X, LABELS), callbacks=[Restless()])
        model.evaluate(X, LABELS, batch_size=BATCH, verbose=0)
        model.optimizer.learning_rate = 0.5
        model.train_on_batch(X[:BATCH], LABELS[:BATCH], WEIGHTS[:BATCH])
        assert (made(), graphs(model)) == (first, 2)

    def test_the_learning_rate_counts(self):
        model = classifier(optimizer=optimizers.SGD(0.1), jit_compile=True)
        fit(model)
        model.optimizer.learning_rate = 0.0
        before = state(model)["dense.weight"]
        fit(model)
        torch.testing.assert_close(before, state(model)["dense.weight"])

    def test_the_short_last_batch_has_no_graph(self):
        model = classifier(jit_compile=True)
        fit(model)
        assert ROWS % BATCH
        assert graphs(model) == 1

    def test_freezing_is_noticed(self):
        model = classifier(jit_compile=True)
        fit(model)
        model.get_layer("dense").trainable = False
        before = state(model)
        fit(model)
        after = state(model)
        assert torch.equal(before["dense.weight"], after["dense.weight"])
        assert not torch.equal(before["dense_2.weight"], after["dense_2.weight"])

    def test_a_layers_number_counts(self):
        class Calms(callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.model.get_layer("dropout").rate = 0.9 if epoch else 0.1

        found = [fit(classifier(jit_compile=jit), epochs=2, callbacks=[Calms()]) for jit in (False, True)]
        assert_same(*found, rtol=1e-4, atol=1e-5)

    def test_many_lengths(self):
        model = Model(inputs := layers.Input((None, 2)), layers.Dense(1)(layers.GlobalAveragePooling1D()(inputs)))
        model.compile("sgd", "mse", jit_compile=True)
        data = [(np.ones((2, length, 2), "float32"), np.ones((2, 1), "float32")) for length in range(1, MAX_GRAPHS + 5)]
        with pytest.warns(UserWarning, match=f"more than {MAX_GRAPHS} kinds") as told:
            model.fit(iter(data), verbose=0, steps_per_epoch=len(data))
        assert len(told) == 1
        assert made() >= MAX_GRAPHS

    def test_hooks_of_batches_are_called_once_for_all_steps(self):
        seen = []
        hook = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
        fit(classifier(steps_per_execution=4, jit_compile=True), epochs=1, callbacks=[hook])
        assert seen == [3, 5]

    def test_copies_compile_for_themselves(self):
        model = classifier(jit_compile=True)
        fit(model)
        duplicate = copy.deepcopy(model)
        before = state(model)
        fit(duplicate)
        assert_same(before, state(model), rtol=0, atol=0)
        assert graphs(duplicate) == 1


class Undrawable(layers.Layer):
    """Looks at values: runs, but not in a graph."""

    def call(self, inputs):
        return inputs * 2 if inputs.detach().sum().item() > 0 else inputs

    def compute_output_shape(self, input_shape):
        return input_shape


def undrawable(**settings):
    inputs = layers.Input((6,))
    model = Model(inputs, layers.Dense(3, activation="softmax")(Undrawable(name="looks")(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy", **settings)
    return model


class TestRefusals:
    def test_required(self):
        model = undrawable(jit_compile=True)
        with pytest.raises(
            ValueError, match=r"training step of model 'functional' .* layer 'looks'.*jit_compile=False"
        ):
            fit(model)
        model.compile("sgd", "sparse_categorical_crossentropy")
        assert len(fit(model)["loss"]) == 4

    def test_said_once_and_trained_on(self, monkeypatch):
        torchfunc.config.set_reproducible(False)
        monkeypatch.setattr(torchfunc.training.payback, "_RISK", 1e9)
        model = undrawable()
        with pytest.warns(UserWarning, match=r"layer 'looks', at .*test_compiled_steps.py:\d+.*runs eagerly") as told:
            history = fit(model, epochs=12)
        assert len(told) == 1
        assert len(history["loss"]) == 12
        fit(model, epochs=12)

    def test_a_float64_scalar_of_a_metric_of_the_users(self):
        class Counting(metrics.Metric):
            def __init__(self):
                super().__init__(dtype="float64")
                self.count = self.add_variable((), "zeros")

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.count.add_(1)

            def result(self):
                return self.count.clone()

        with pytest.raises(ValueError, match=r"metric 'counting' .* float64 .*shape \(1,\)"):
            fit(classifier(metrics=[Counting()], jit_compile=True))


class Clock:
    """Each look at it takes as long as it is told."""

    def __init__(self):
        self.now = self.step = 0.0

    def __call__(self):
        self.now += self.step
        return self.now


class Step:
    """A step, or its compiled form, that takes some seconds of a clock."""

    is_waiting = False

    def __init__(self, clock, done, kind, seconds, is_prepared_beside=True):
        self.clock, self.done, self.kind, self.seconds = clock, done, kind, seconds
        self.is_prepared_beside = is_prepared_beside

    def __call__(self, data):
        self.done.append(self.kind)
        self.clock.now += self.seconds


class TestPayback:
    def run(self, remaining, eager=0.01, compiled=0.005, steps=200, layers=8, spare_core=False, beside=True):
        clock = Clock()
        payback = Payback(layers, clock, spare_core)
        payback.expect(remaining)
        done = []
        for _ in range(steps):
            payback.run(Step(clock, done, "eager", eager), Step(clock, done, "compiled", compiled, beside), None)
        return done

    def test_a_short_training_stays_eager(self):
        assert set(self.run(remaining=200)) == {"eager"}

    def test_a_long_training_is_compiled(self):
        done = self.run(remaining=100_000)
        first = done.index("compiled")
        assert first < 50
        assert set(done[first:]) == {"compiled"}

    def test_slower_graphs_are_left(self):
        done = self.run(remaining=100_000, compiled=0.02)
        assert "compiled" in done
        assert done[-1] == "eager"
        assert done.count("compiled") < 50

    def test_unknown_length_stays_eager(self):
        assert set(self.run(remaining=None)) == {"eager"}

    @pytest.mark.parametrize(
        ("spare_core", "beside", "seconds"), [(1, 1, 4.8), (0, 1, 23.8), (1, 0, 23.8), (0, 0, 23.8)]
    )
    def test_no_gain_costs_a_twentieth_at_most(self, spare_core, beside, seconds):
        """What compiling costs: seconds of this process, and those of another one unless there is a core for it."""
        for share, done in ((0.049, {"eager", "compiled"}), (0.051, {"eager"})):
            remaining = round(seconds / share / 0.01) + 25
            assert set(self.run(remaining, spare_core=spare_core, beside=beside)) == done

    def test_steps_that_wait_for_their_graph_are_no_compiled_ones(self):
        clock, done = Clock(), []
        payback = Payback(8, clock, True)
        payback.expect(100_000)
        graph = Step(clock, done, "compiled", 0.005)
        graph.is_waiting, graph.seconds = True, 0.02
        for number in range(200):
            graph.is_waiting, graph.seconds = (number < 100), (0.02 if number < 100 else 0.005)
            payback.run(Step(clock, done, "eager", 0.01), graph, None)
        assert done[25:] == ["compiled"] * 175

    def test_the_next_training_knows(self):
        clock, done = Clock(), []
        payback = Payback(8, clock, True)
        for remaining in (1_000, 100_000, 1_000):
            payback.expect(remaining)
            for _ in range(30):
                payback.run(Step(clock, done, "eager", 0.01), Step(clock, done, "compiled", 0.005), None)
        # A graph that there is costs nothing any more.
        assert done == ["eager"] * 31 + ["compiled"] * 59

    @pytest.mark.usefixtures("traced", "double")
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_fit(self, monkeypatch, name):
        torchfunc.config.set_reproducible(False)
        monkeypatch.setattr(torchfunc.training.payback, "_RISK", 1e9)
        monkeypatch.setattr(CompilerProcess, "is_possible", lambda: False)
        eager, switched = (classifier(optimizer=OPTIMIZERS[name](), jit_compile=jit) for jit in (False, "payback"))
        assert_same(fit(eager, epochs=12), fit(switched, epochs=12), **CLOSE)
        assert_same(state(eager), state(switched), **CLOSE)
        assert graphs(switched) == 1


class TestCompiledStep:
    def test_first_step_is_eager(self, monkeypatch):
        calls = []
        monkeypatch.setattr(compiled_step, "compile_whole", lambda step, *_: lambda data: calls.append("graph"))
        step = CompiledStep(lambda data: calls.append("eager"), "It", required=True, guarded=False)
        for rows in (4, 4, 4, 2, 4):
            step(torch.zeros(rows, 3))
        assert calls == ["eager", "graph", "graph", "eager", "graph"]
        step(torch.zeros(4, 5))
        assert calls[-1] == "graph"
        assert step.graphs == 2


class Scaled(layers.Layer):
    """Reads a number that nobody but torch.compile's guards knows of."""

    def __init__(self):
        super().__init__()
        self.settings = {"scale": 1.0}

    def call(self, inputs):
        return inputs * self.settings["scale"]


@pytest.mark.usefixtures("traced")
def test_guards_stay_for_the_users_code():
    scaled = Scaled()
    inputs = layers.Input((6,))
    model = Model(inputs, layers.Dense(1, kernel_initializer="ones")(scaled(inputs)))
    model.compile("sgd", "mse", jit_compile=True)
    zeros = np.zeros((ROWS, 1))
    once = model.evaluate(X, zeros, BATCH, verbose=0)
    scaled.settings["scale"] = 2.0
    assert model.evaluate(X, zeros, BATCH, verbose=0) == pytest.approx(4 * once)
    assert graphs(model) == 1


@pytest.mark.parametrize(("metric", "stay"), [("accuracy", False), (lambda y_true, y_pred: y_pred[:, 0], True)])
def test_guards_are_left_out_where_all_code_is_known(monkeypatch, metric, stay):
    guarded = []

    def compile_whole(step, guards, on_cuda):
        guarded.append(guards)
        return step

    monkeypatch.setattr(compiled_step, "compile_whole", compile_whole)
    fit(classifier(metrics=[metric], jit_compile=True), epochs=1)
    assert guarded == [stay]
