"""Optimizers in compiled steps, and without them: one graph that never changes, and no question to the device."""

import copy
import pickle
import re

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from torchfunc import optimizers

# Torch's compiler imports what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

SHAPES = [(3, 4), (4,)]

CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {}),
    ("Adadelta", {}),
    ("Adafactor", {}),
    ("Adagrad", {}),
    ("Adamax", {}),
    ("Ftrl", {"l1_regularization_strength": 0.1, "beta": 0.1}),
    ("Lamb", {}),
    ("Lion", {}),
    ("Muon", {}),
    ("Nadam", {}),
    ("ScheduleFreeAdamW", {"warmup_steps": 3}),
]
OPTIONS = [
    {"clipnorm": 0.7},
    {"clipvalue": 0.3},
    {"global_clipnorm": 1.5},
    {"weight_decay": 0.1},
    {"use_ema": True, "ema_momentum": 0.4, "ema_overwrite_frequency": 3},
    {"gradient_accumulation_steps": 3},
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2, "clipnorm": 0.7},
    {"loss_scale_factor": 8.0},
    {"learning_rate": lambda step: 0.1 * 0.9**step},
    {"learning_rate": lambda: 0.05},
    {"learning_rate": optimizers.schedules.CosineDecay(0.1, 8, warmup_target=0.3, warmup_steps=5)},
]


def shown(value):
    """A test's name, less the addresses: processes that share the tests know them by name."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))


@pytest.fixture(autouse=True)
def forget_earlier_graphs():
    torch._dynamo.reset()


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(steps, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES] for _ in range(steps)]


def make(name, options):
    if name == "LossScaleOptimizer":
        return optimizers.LossScaleOptimizer(optimizers.Adam(**options))
    optimizer = getattr(optimizers, name)(**{"learning_rate": 0.1, **options})
    if options.get("weight_decay"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def build(optimizer, params):
    optimizer.name_weights(zip(["kernel", "bias"], params, strict=True))
    optimizer.build(params)
    return params


def compiled(optimizer, params, backend):
    count = CompileCounterWithBackend(backend)
    return count, torch.compile(
        lambda grads: optimizer.apply(grads, params), fullgraph=True, dynamic=False, backend=count
    )


def assert_close(left, right, tolerance=1e-10):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def check_compiled_equals_eager(name, options, backend="aot_eager"):
    """Twenty steps, of which a few are eager ones in between, with a learning rate that changes."""
    eager, mixed = make(name, options), make(name, options)
    expected, params = build(eager, parameters()), build(mixed, parameters())
    count, step = compiled(mixed, params, backend)
    frames = 0
    for index, grads in enumerate(gradients(20)):
        if not callable(options.get("learning_rate")):
            eager.learning_rate = mixed.learning_rate = 0.1 / (1 + index // 4)
        eager.apply(grads, expected)
        if index % 7 == 3:
            mixed.apply(grads, params)
        else:
            step(grads)
        # Torch may look twice at the first step, but at no other.
        frames = frames or count.frame_count
    assert count.frame_count == frames, "it was compiled again"
    assert_close(params, expected)
    assert_close(mixed.variables, eager.variables)
    eager.finalize_variable_values(expected)
    mixed.finalize_variable_values(params)
    assert_close(params, expected)


@pytest.mark.parametrize(("name", "options"), CASES, ids=shown)
def test_a_compiled_step_equals_the_eager_one(name, options):
    check_compiled_equals_eager(name, options)


@pytest.mark.parametrize("options", OPTIONS, ids=shown)
def test_every_option_is_compiled(options):
    check_compiled_equals_eager("SGD", {"momentum": 0.9, **options})


@pytest.mark.slow
def test_inductor():
    options = {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2, "clipnorm": 0.7}
    check_compiled_equals_eager("SGD", options, "inductor")


def test_a_compiled_loss_scale_equals_the_eager_one():
    eager, graph = (optimizers.LossScaleOptimizer(make("Nadam", {}), 8.0, 3) for _ in range(2))
    expected, params = build(eager, parameters()), build(graph, parameters())
    count, step = compiled(graph, params, "aot_eager")
    frames = 0
    for index, grads in enumerate(gradients(20)):
        if index % 6 == 2:
            grads[0][0] = float("inf")
        eager.learning_rate = graph.learning_rate = 0.1 / (1 + index // 4)
        eager.apply(grads, expected)
        step(grads)
        frames = frames or count.frame_count
    assert count.frame_count == frames, "it was compiled again"
    assert int(graph.iterations) == 17
    assert_close(params, expected)
    assert_close(graph.variables, eager.variables)


def test_missing_gradients_are_dropped_in_a_graph():
    eager, graph = make("Adam", {}), make("Adam", {})
    expected, params = build(eager, parameters()), build(graph, parameters())
    _, step = compiled(graph, params, "aot_eager")
    for grads in gradients(3):
        grads[1] = None
        eager.apply(grads, expected)
        step(grads)
    assert_close(params, expected)
    assert torch.equal(params[1], parameters()[1])


class Questions(TorchDispatchMode):
    """Counts how often a value is asked back from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *CASES,
        ("Adam", {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2}),
        ("Adam", {"learning_rate": lambda step: 0.1 * 0.9**step}),
        ("SGD", {"learning_rate": optimizers.schedules.CosineDecayRestarts(0.1, 100)}),
        ("LossScaleOptimizer", {}),
    ],
    ids=shown,
)
def test_steps_never_ask_the_device(name, options):
    params = parameters()
    optimizer = make(name, options)
    grads = gradients(1)[0]
    with Questions() as questions:
        optimizer.build(params)
        # A thousand steps where there is a branch to take; the other rules do the same at each step.
        for index in range(1000 if name in ("SGD", "Adam") else 100):
            optimizer.apply(grads, params)
            if index % 20 == 0 and "learning_rate" not in options:
                optimizer.learning_rate = 0.1 / (1 + index)
    assert questions.count == 0


def test_the_questions_are_counted():
    with Questions() as questions:
        torch.ones(()).item()
    assert questions.count == 1


def change_in_place(optimizer, params):
    optimizer.learning_rate.fill_(0.01)
    optimizer.iterations.add_(5)


def change_by_loading(optimizer, params):
    store = {}
    optimizer.save_own_variables(store)
    optimizer.load_own_variables({**store, "0": store["0"] + 5, "1": store["1"] * 0 + 0.01})


def change_by_a_compiled_step(optimizer, params):
    optimizer.learning_rate = 0.01
    kept = [param.detach().clone() for param in (*params, *optimizer.variables[2:])]
    _, step = compiled(optimizer, params, "aot_eager")
    for _ in range(5):
        step([torch.zeros_like(param) for param in params])
    with torch.no_grad():
        for tensor, old in zip((*params, *optimizer.variables[2:]), kept, strict=True):
            tensor.copy_(old)


@pytest.mark.parametrize(
    ("change", "copier"),
    [
        (change_in_place, None),
        (change_in_place, copy.deepcopy),
        (change_in_place, lambda pair: pickle.loads(pickle.dumps(pair))),
        (change_by_loading, None),
        (change_by_a_compiled_step, None),
    ],
)
def test_changes_by_others_are_seen(change, copier):
    optimizer, params = optimizers.Adam(0.1), parameters()
    first, second = gradients(2)
    optimizer.apply(first, params)
    if copier:
        optimizer, params = copier((optimizer, params))
    change(optimizer, params)
    assert int(optimizer.iterations) == 6
    # Adam's formula, with the changed count and rate.
    m, v = 0.9 * 0.1 * first[0] + 0.1 * second[0], 0.999 * 0.001 * first[0] ** 2 + 0.001 * second[0] ** 2
    alpha = float(optimizer.learning_rate) * (1 - 0.999**7) ** 0.5 / (1 - 0.9**7)
    expected = params[0].detach() - alpha * m / (v.sqrt() + 1e-7)
    optimizer.apply(second, params)
    assert abs(float(optimizer.learning_rate) - 0.01) < 1e-8
    assert_close([params[0].detach()], [expected], 1e-9)
    assert int(optimizer.iterations) == 7


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_state_follows_the_weights_and_stays_the_same_tensors():
    params = parameters()
    optimizer = make("Adam", {"use_ema": True})
    optimizer.build(params)
    kept = optimizer.variables
    for param in params:
        param.data = param.data.cuda()
    optimizer.build(params)
    assert all(variable.is_cuda for variable in optimizer.variables)
    assert all(a is b for a, b in zip(optimizer.variables, kept, strict=True))
    assert optimizer.iterations.is_cuda
    assert optimizer.learning_rate.is_cuda


def test_a_changed_hyperparameter_is_reported():
    optimizer = optimizers.SGD(0.1, momentum=0.9)
    before = optimizer.graph_key()
    optimizer.learning_rate = 0.2
    optimizer.apply(gradients(1)[0], parameters())
    built = optimizer.graph_key()
    optimizer.apply(gradients(1)[0])
    assert optimizer.graph_key() == built
    optimizer.momentum = 0.5
    assert optimizer.graph_key() != built
    assert len(before) == len(built)


# In a graph, torch corrects the bias with a step count in float32.
TORCH_OPTIMIZERS = [
    (torch.optim.ASGD, {}, 1e-6),
    (torch.optim.Adadelta, {}, 1e-10),
    (torch.optim.Adafactor, {}, 1e-10),
    (torch.optim.Adagrad, {}, 1e-8),
    (torch.optim.Adam, {"amsgrad": True}, 1e-6),
    (torch.optim.AdamW, {}, 1e-6),
    (torch.optim.Adamax, {}, 1e-7),
    (torch.optim.NAdam, {}, 1e-6),
    (torch.optim.RAdam, {}, 1e-5),
    (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}, 1e-10),
    (torch.optim.Rprop, {}, 1e-10),
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}, 1e-10),
]


@pytest.mark.parametrize(("cls", "options", "tolerance"), TORCH_OPTIMIZERS, ids=lambda v: getattr(v, "__name__", ""))
def test_torch_optimizers_in_a_graph_equal_a_torch_loop(cls, options, tolerance):
    params, expected = parameters(), parameters()
    reference, optimizer = cls(expected, lr=0.01, **options), optimizers.get(cls(params, lr=0.01, **options))
    optimizer.build(params)
    # What torch makes of in-place changes is seen in two of them.
    backend = "aot_eager" if cls in (torch.optim.SGD, torch.optim.AdamW) else "eager"
    count, step = compiled(optimizer, params, backend)
    takes_rate = cls is not torch.optim.Adafactor
    for index, grads in enumerate(gradients(8)):
        rate = 0.01 / (1 + index // 3) if takes_rate else 0.01
        optimizer.learning_rate = rate
        for group in reference.param_groups:
            group["lr"] = rate
        for param, grad in zip(expected, grads, strict=True):
            param.grad = grad
        reference.step()
        if index == 0 or index == 5:
            assert optimizer.prepare_capture() == (index > 0)
            optimizer.apply(grads, params)
        elif index == 1:
            assert optimizer.prepare_capture()
            numbers = optimizer.graph_key()
            step(grads)
            frames = count.frame_count
        else:
            step(grads)
    assert count.frame_count == frames, "it was compiled again"
    assert optimizer.graph_key() == numbers
    assert_close(params, expected, tolerance)
    assert isinstance(optimizer.learning_rate, torch.Tensor) == takes_rate
    assert int(optimizer.iterations) == 8


def test_a_rate_that_stays_a_number_is_reported():
    params = parameters()
    optimizer = optimizers.get(torch.optim.Adafactor(params, lr=0.1))
    optimizer.apply(gradients(1)[0], params)
    assert optimizer.prepare_capture()
    # No graph may take it for a constant without torch.compile's guards.
    assert optimizer.torch_optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.graph_key() is None


def test_weights_without_gradients_stay_without_in_a_graph():
    params, expected = parameters(), parameters()
    optimizer = optimizers.get(torch.optim.SGD(params, lr=0.1, weight_decay=0.5))
    reference = torch.optim.SGD(expected, lr=0.1, weight_decay=0.5)
    _, step = compiled(optimizer, params, "aot_eager")
    for index, grads in enumerate(gradients(3)):
        grads[1] = None
        for param, grad in zip(expected, grads, strict=True):
            param.grad = grad
        reference.step()
        optimizer.apply(grads, params) if index == 0 else step(grads)
        assert optimizer.prepare_capture()
    assert_close(params, expected)
    assert params[1].grad is None


class Counting(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self, closure=None):
        for param in self.param_groups[0]["params"]:
            self.state[param]["count"] = self.state[param].get("count", 0) + 1


def test_optimizers_that_cannot_be_captured_say_why():
    params = parameters()
    counting = optimizers.get(Counting(params))
    counting.apply(gradients(1)[0], params)
    with pytest.raises(ValueError, match=r"Counting keeps Python numbers in its state \(count\)"):
        counting.prepare_capture()
    hooked = torch.optim.SGD(params, lr=0.1)
    hooked.register_step_post_hook(lambda *_: None)
    wrapped = optimizers.get(hooked)
    wrapped.apply(gradients(1)[0], params)
    with pytest.raises(ValueError, match="SGD has step hooks"):
        wrapped.prepare_capture()


def test_a_graph_before_the_first_step_is_refused():
    params = parameters()
    optimizer = optimizers.get(torch.optim.SGD(params, lr=0.1))
    optimizer.build(params)
    _, step = compiled(optimizer, params, "eager")
    with pytest.raises(Exception, match="prepare_capture"):
        step(gradients(1)[0])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_of_a_captured_torch_optimizer_keep_their_rates(copier):
    params = parameters()
    optimizer = optimizers.get(torch.optim.SGD(params, lr=0.1))
    optimizer.apply(gradients(1)[0], params)
    assert optimizer.prepare_capture()
    twin, twin_params = copier((optimizer, params))
    twin.learning_rate = 0.5
    before = twin_params[0].detach().clone()
    twin.apply(gradients(1)[0], twin_params)
    assert_close([twin_params[0].detach()], [before - 0.5 * gradients(1)[0][0]])
    assert float(optimizer.learning_rate) == 0.1
    # A number that somebody puts in the tensor's place is taken as it is.
    twin.torch_optimizer.param_groups[0]["lr"] = 0.25
    twin.apply(gradients(1)[0], twin_params)
    assert_close([twin_params[0].detach()], [before - 0.75 * gradients(1)[0][0]])


def test_weight_decay_leaves_out_what_it_was_told_to_in_every_rule():
    for name in ("SGD", "Muon"):
        params = parameters()
        optimizer = getattr(optimizers, name)(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=params[:1])
        optimizer.apply([torch.zeros_like(param) for param in params], params)
        share = 1 - 0.1 * (0.5 if name == "SGD" else 0.004)
        assert_close([param.detach() for param in params], [parameters()[0], parameters()[1] * share], 1e-7)
