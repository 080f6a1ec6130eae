"""How graphs are made: what `traced` of other tests replaces, with torch.compile's own backend.

`TestForReal` waits for a C++ compiler, which takes some ten seconds; all else only looks at what torch is asked for.
"""

import random

import numpy as np
import pytest
import torch

from torchfunc import Input, Model, layers
from torchfunc.training import compiled_step
from torchfunc.training.compiled_step import compile_whole

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function"),
]

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((24, 4)), RNG.standard_normal((24, 1))


class Graph:
    """What torch.compile returns, and what its `aot_compile` does."""

    def __init__(self, function=lambda data: data, error=None):
        self.function, self.error = function, error
        self.draws = []
        self.checks_guards = True
        self.made_for = None

    def aot_compile(self, example):
        self.made_for = example
        self.draws.append(random.random())
        if self.error is not None:
            raise self.error
        return self

    def disable_guard_check(self):
        self.checks_guards = False

    def __call__(self, data):
        return self.function(data)


@pytest.fixture
def asked(monkeypatch):
    """The arguments of each call of torch.compile or `compile_by_content`, which make a `Graph` of the function."""
    asked = []

    def compile(function, **arguments):
        asked.append({**arguments, "may_be_made_ahead": torch._dynamo.config.enable_aot_compile})
        return Graph(function)

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compiled_step, "compile_by_content", lambda step, options: compile(step, options=options))
    return asked


def double(data):
    return 2 * data


class TestForReal:
    def test_a_fit_is_that_of_eager_steps(self):
        histories, weights, draws = [], [], []
        for jit in (False, True):
            torch.manual_seed(0)
            inputs = Input((4,))
            model = Model(inputs, layers.Dense(1)(layers.Dropout(0.5)(inputs)))
            model.compile("sgd", "mse", jit_compile=jit, device="cpu")
            torch.manual_seed(1)
            random.seed(2)
            histories.append(model.fit(X, Y, batch_size=8, epochs=3, verbose=0).history)
            weights.append(model.get_weights())
            draws.append(random.random())
        steps = model._training_settings.graphs["train_step"].values()
        assert [step.graphs for step in steps] == [1]
        # Dropout draws the numbers of an eager step.
        for name, values in histories[0].items():
            np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)
        for one, other in zip(*weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert draws[0] == draws[1]

        # A graph without guards is called as it is: what it reads from its step's attributes may change.
        model.optimizer.learning_rate = 0.0
        before = model.get_weights()
        model.fit(X, Y, batch_size=8, verbose=0)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert [step.graphs for step in steps] == [1]


class TestWhatTorchIsAskedFor:
    def test_without_guards_a_graph_is_made_ahead_of_time(self, asked):
        run = compile_whole(double, guarded=False, on_cuda=False)
        with torch._dynamo.config.patch(enable_aot_compile=False):
            assert [float(run(torch.tensor(value))) for value in (1.0, 2.0)] == [2.0, 4.0]
            assert not torch._dynamo.config.enable_aot_compile
        (arguments,) = asked
        assert arguments["may_be_made_ahead"]
        assert arguments["options"]["fallback_random"]
        assert arguments["options"]["guard_filter_fn"] is torch.compiler.skip_all_guards_unsafe
        assert not arguments["options"].get("triton.cudagraphs")

    def test_with_guards_torch_looks_for_the_graph_at_each_call(self, asked, monkeypatch):
        monkeypatch.setattr(Graph, "aot_compile", None)
        run = compile_whole(double, guarded=True, on_cuda=False)
        assert float(run(torch.tensor(1.0))) == 2.0
        assert asked[0]["fullgraph"]
        assert asked[0]["dynamic"] is False
        assert "guard_filter_fn" not in asked[0]["options"]

    @pytest.mark.parametrize("guarded", [False, True])
    def test_on_cuda_a_graph_is_replayed(self, asked, monkeypatch, guarded):
        begun = []
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(len(results)))
        memory = torch.zeros(2)
        results = []
        run = compile_whole(lambda data: {"sum": memory.add_(data), "of": 3}, guarded, on_cuda=True)
        for _ in range(3):
            results.append(run(torch.ones(2)))
        assert begun == [0, 1, 2]
        # Each result stays, though the graph writes to the same memory.
        assert [result["sum"].tolist() for result in results] == [[1, 1], [2, 2], [3, 3]]
        assert [result["of"] for result in results] == [3, 3, 3]
        assert asked[0]["options"]["triton.cudagraphs"]
        assert len(asked) == 1

    def test_a_fusion_that_fails_is_tried_without_fusions(self, monkeypatch):
        made = []

        def make(step, data, guarded, on_cuda, options):
            made.append(options)
            if not options:
                raise torch._dynamo.exc.BackendCompilerFailed(make, RuntimeError("a fusion"), None)
            return step

        monkeypatch.setattr(compiled_step, "_make_graph", make)
        run = compile_whole(double, guarded=False, on_cuda=False)
        assert [float(run(torch.tensor(value))) for value in (1.0, 2.0)] == [2.0, 4.0]
        assert made == [{}, {"max_fusion_size": 1}]

    def test_other_errors_are_not_hidden(self, monkeypatch):
        def make(*_):
            raise torch._dynamo.exc.Unsupported("something")

        monkeypatch.setattr(compiled_step, "_make_graph", make)
        with pytest.raises(torch._dynamo.exc.Unsupported):
            compile_whole(double, guarded=False, on_cuda=False)(torch.ones(1))


class TestAheadOfTime:
    def test_the_graph_is_made_for_the_data_and_checks_nothing(self):
        graph, data = Graph(double), torch.ones(2)
        made = compiled_step._ahead_of_time(graph, data)
        assert made is graph
        assert graph.made_for == ((data,), {})
        assert not graph.checks_guards

    def test_names_in_torchs_cache_do_not_depend_on_the_users_seed(self):
        graph = Graph()
        following = []
        for _ in range(2):
            random.seed(0)
            compiled_step._ahead_of_time(graph, torch.ones(1))
            following.append(random.random())
        assert graph.draws[0] != graph.draws[1]
        random.seed(0)
        assert following == [random.random()] * 2

    def test_numbers_that_become_constants_leave_it_to_torch(self):
        graph = Graph(error=torch._dynamo.exc.RestartAnalysis(restart_reason="a number"))
        random.seed(0)
        assert compiled_step._ahead_of_time(graph, torch.ones(1)) is graph
        assert graph.checks_guards
        drawn = random.random()
        random.seed(0)
        assert drawn == random.random()
