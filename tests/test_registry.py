"""Names and configs, of each family and in general, against Keras'."""

import functools
import inspect
import json
from unittest import mock

import keras
import numpy as np
import pytest
import torch
from keras.src.saving import object_registration

from torchfunc import activations, constraints, initializers, registry, regularizers
from torchfunc.families import Family

FAMILIES = {
    "activations": activations,
    "constraints": constraints,
    "initializers": initializers,
    "regularizers": regularizers,
}
families = pytest.mark.parametrize("family", FAMILIES)
THEIRS = [
    (family, name)
    for family in FAMILIES
    for name in dir(getattr(keras, family))
    if not name.startswith("_") and callable(getattr(getattr(keras, family), name))
]


class Ramp:
    """A custom initializer; as Keras' it needs no base class."""

    def __init__(self, step=1.0):
        self.step = step

    def __call__(self, shape, dtype=None):
        return self.step * torch.arange(shape[0], dtype=dtype)

    def get_config(self):
        return {"step": self.step}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class WithoutConfig:
    def __call__(self, x):
        return x


def halve(x):
    return x / 2


@pytest.fixture
def registered():
    """A function that registers in both libraries; they forget again."""

    def register(member):
        registry.register_serializable("tests")(member)
        return keras.saving.register_keras_serializable("tests")(member)

    with (
        mock.patch.dict(registry._registered),
        mock.patch.dict(registry._registered_names),
        mock.patch.dict(object_registration.GLOBAL_CUSTOM_OBJECTS),
        mock.patch.dict(object_registration.GLOBAL_CUSTOM_NAMES),
    ):
        yield register


@pytest.mark.parametrize(("family", "name"), THEIRS)
def test_every_name_of_keras_is_there_with_its_arguments(family, name):
    ours, theirs = getattr(FAMILIES[family], name), getattr(getattr(keras, family), name)
    assert name in FAMILIES[family].__all__
    assert isinstance(ours, type) == isinstance(theirs, type)
    if name in ("get", "serialize", "deserialize") or theirs.__init__ is object.__init__:
        return
    if isinstance(ours, type):
        assert ours.__name__ == theirs.__name__
    arguments = [
        {argument.name: argument.default for argument in inspect.signature(member).parameters.values()}
        for member in (ours, theirs)
    ]
    assert arguments[0] == arguments[1]


@pytest.mark.parametrize("name", ["MaxPooling2D", "GlorotUniform", "L1L2", "ReLU", "MinMaxNorm", "STFT", "LSTMCell"])
def test_snake_case_is_that_of_keras(name):
    assert registry.to_snake_case(name) == keras.src.utils.naming.to_snake_case(name)


@families
def test_unknown_names(family):
    module = FAMILIES[family]
    known = {"activations": "relu", "constraints": "non_neg", "initializers": "zeros", "regularizers": "l2"}[family]
    with pytest.raises(ValueError, match=f"There is no {family[:-1]} called '{known}x'. Did you mean .*'{known}'"):
        module.get(known + "x")
    with pytest.raises(ValueError, match=r"'Missing' .*not known.*custom_objects.*register_serializable"):
        module.get({"module": f"keras.{family}", "class_name": "Missing", "config": {}})
    with pytest.raises(ValueError, match="has no 'class_name'"):
        module.get({"l1": 0.1})
    with pytest.raises(ValueError, match=rf"\[1\] is no {family[:-1]}"):
        module.get([1])


@families
def test_lambdas_are_refused(family):
    module = FAMILIES[family]
    function = lambda x: x  # noqa: E731
    assert module.get(function) is function
    with pytest.raises(ValueError, match="lambda cannot be written"):
        module.serialize(function)
    with pytest.raises(ValueError, match="bytecode of a lambda, which is never loaded"):
        module.deserialize({"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}})
    with pytest.raises(ValueError, match="get_config"):
        module.serialize(WithoutConfig())


def test_partials():
    """Of functions that are registered, or torch's own."""
    for function in (functools.partial(halve), functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.3)):
        again = registry.deserialize_keras_object(
            json.loads(json.dumps(registry.serialize_keras_object(function))), {"halve": halve}
        )
        assert (again.func, again.args, again.keywords) == (function.func, function.args, function.keywords)
    with pytest.raises(ValueError, match="lambda"):
        registry.serialize_keras_object(functools.partial(lambda x: x))


@families
def test_custom_classes(family, registered):
    module, theirs = FAMILIES[family], getattr(keras, family)
    written = module.serialize(Ramp(0.5))
    assert written == keras.saving.serialize_keras_object(Ramp(0.5))
    with pytest.raises(ValueError, match=r"'Ramp' .*not known"):
        module.get(written)
    for loaded in (
        module.deserialize(written, {"Ramp": Ramp}),
        theirs.deserialize(written, {"Ramp": Ramp}),
    ):
        assert loaded.step == 0.5
    with registry.custom_object_scope({"Ramp": Ramp}):
        assert module.get(written).step == 0.5
        assert module.get("Ramp").step == 1.0
    with pytest.raises(ValueError, match=r"no .* called 'Ramp'"):
        module.get("Ramp")

    registered(Ramp)
    written = module.serialize(Ramp(0.25))
    assert written == keras.saving.serialize_keras_object(Ramp(0.25))
    assert written["registered_name"] == "tests>Ramp"
    assert module.get(written).step == theirs.get(written).step == 0.25
    assert registry.get_registered_name(Ramp) == "tests>Ramp"
    assert registry.get_registered_object("tests>Ramp") is Ramp


@families
def test_custom_functions(family, registered):
    module, theirs = FAMILIES[family], getattr(keras, family)
    for written in (module.serialize(halve), theirs.serialize(halve)):
        with pytest.raises(ValueError, match=r"'halve' .*not known"):
            module.get(written)
        assert module.deserialize(written, {"halve": halve}) is halve
        assert theirs.deserialize(written, {"halve": halve}) is halve
    registered(halve)
    for written in (module.serialize(halve), theirs.serialize(halve)):
        assert json.loads(json.dumps(written)) == written
        assert module.get(written) is halve
        assert theirs.get(written) is halve


def test_scopes_nest_and_end():
    with registry.custom_object_scope({"a": halve}):
        with registry.custom_object_scope({"b": abs}):
            assert activations.get("a") is halve
            assert activations.get("b") is abs
        with pytest.raises(ValueError, match="no activation called 'b'"):
            activations.get("b")
        with pytest.raises(RuntimeError), registry.custom_object_scope({"b": abs}):
            raise RuntimeError
        assert registry.get_registered_object("b") is None
    assert registry.get_registered_object("a") is None


def test_custom_objects_may_be_added(registered):
    registry.get_custom_objects()["halve"] = halve
    assert activations.get("halve") is halve


@pytest.mark.parametrize("module", ["my_package.layers", "__main__", None, "torch.nn.functional", "keras.losses"])
def test_a_stranger_is_not_taken_for_a_builtin(module):
    """Keras writes None for classes of the main script."""
    for config in (
        {"module": module, "class_name": "L2", "config": {}, "registered_name": "L2"},
        {"module": module, "class_name": "function", "config": "relu", "registered_name": "relu"},
    ):
        with pytest.raises(ValueError, match="not known"):
            registry.deserialize_keras_object(config)
        with pytest.raises(ValueError, match="not known"):
            activations.deserialize(config)


def test_where_builtins_are_found():
    config = {"class_name": "L2", "config": {"l2": 0.5}}
    for module in ("keras.regularizers", "keras.src.regularizers.regularizers", "builtins"):
        assert registry.deserialize_keras_object({**config, "module": module}).l2 == 0.5
    assert registry.deserialize_keras_object(config).l2 == 0.5
    assert regularizers.get({"class_name": "L2"}).l2 == 0.01
    assert regularizers.get({"class_name": "L2", "config": None}).l2 == 0.01
    assert activations.get({"class_name": "gelu", "config": {}}) is activations.gelu


def test_a_family_prefers_its_own():
    """A bare name stands for a member of the family that was asked."""

    class Zeros(Ramp):
        pass

    config = {"class_name": "Zeros", "config": {}}
    with mock.patch.dict(registry._builtins), mock.patch.dict(registry._builtin_places):
        other = Family("other", "tests.others", {"Zeros": Zeros})
        assert type(other.get(config)) is Zeros
        assert type(initializers.get(config)) is initializers.Zeros


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, of a tensor
@pytest.mark.parametrize(
    "value",
    [
        None,
        "relu",
        3,
        0.5,
        True,
        [1, [2, "a"]],
        {"a": {"b": 1}},
        np.float32(0.5),
        np.arange(4, dtype="int16").reshape(2, 2),
        torch.tensor([[1.0, 2.0]]),
        torch.ones(2, dtype=torch.bfloat16),
    ],
)
def test_plain_values(value):
    written = registry.serialize_keras_object(value)
    assert written == keras.saving.serialize_keras_object(value)
    again = registry.deserialize_keras_object(json.loads(json.dumps(written)))
    if isinstance(value, (np.ndarray, torch.Tensor)):
        assert type(again) is type(value)
        assert again.dtype == value.dtype
        assert (again == value).all()
    else:
        assert again == value


def test_dtypes_and_nesting():
    assert registry.serialize_keras_object(torch.float16) == "float16"
    written = registry.serialize_keras_object({"by": [regularizers.L2(0.5), activations.relu], "at": (1, 2)})
    assert written == {**json.loads(json.dumps(written)), "at": (1, 2)}
    again = registry.deserialize_keras_object(written)
    assert again["by"][0].l2 == 0.5
    assert again["by"][1] is activations.relu
    assert again["at"] == (1, 2)
    with pytest.raises(ValueError, match=r"object.*cannot be written to a config"):
        registry.serialize_keras_object(object())


def test_arrays():
    for array in (np.arange(3, dtype="int16"), np.array(["a", "bcd"]), np.array([True]), np.array([1.5, np.inf])):
        written = json.loads(json.dumps(registry.serialize_keras_object(array)))
        again = registry.deserialize_keras_object(written)
        np.testing.assert_array_equal(again, array)
        assert again.dtype == array.dtype


@pytest.mark.parametrize("dtype", ["S1000000000", "O", "V9999", "object", "nothing", 3, None])
def test_arrays_of_dtypes_that_say_a_size(dtype):
    config = {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": dtype}}
    with pytest.raises(ValueError, match="not one of numbers or texts"):
        registry.deserialize_keras_object(config)
