"""The lecture on inception networks: each of its examples, with the tables it prints.

The lecture's table has a Flatten where its code has GlobalMaxPooling2D; both are here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from guide_tables import rows, totals

from torchfunc import Input, Model, optimizers, regularizers, utils
from torchfunc.layers import Concatenate, Convolution2D, Dense, Flatten, GlobalMaxPooling2D, MaxPooling2D

SIZES = ((10, (10, 10), (10, 10), 10), (40, (40, 40), (40, 40), 40))


@pytest.fixture(autouse=True)
def seed() -> None:
    utils.set_random_seed(7)


def inception_module(input_tensor: Any, nfilters: Any, activation: str, lambda_regularization: Any, name: str) -> Any:
    def convolve(filters: int, size: int, stride: int, name: str) -> Convolution2D:
        return Convolution2D(
            filters=filters,
            kernel_size=(size, size),
            strides=(stride, stride),
            padding="same",
            name=name,
            activation=activation,
            kernel_regularizer=None if lambda_regularization is None else regularizers.L2(lambda_regularization),
        )

    conv_a = convolve(nfilters[0], 1, 2, "convA_" + name)(input_tensor)
    conv_b0 = convolve(nfilters[1][0], 1, 1, "convB0_" + name)(input_tensor)
    conv_b1 = convolve(nfilters[1][1], 3, 2, "convB1_" + name)(conv_b0)
    conv_c0 = convolve(nfilters[2][0], 1, 1, "convC0_" + name)(input_tensor)
    conv_c1 = convolve(nfilters[2][1], 5, 2, "convC1_" + name)(conv_c0)
    pooled = MaxPooling2D(pool_size=(3, 3), strides=(1, 1), name="MAX_" + name, padding="same")(input_tensor)
    conv_d1 = convolve(nfilters[3], 1, 2, "convD0_" + name)(pooled)
    return Concatenate()([conv_a, conv_b1, conv_c1, conv_d1])


def inception_body(
    image_size: tuple[int, int], n_channels: int, lambda_regularization: Any, activation: str, flatten: Any
) -> tuple[Any, Any]:
    """The input, and the flat features of the two modules behind it."""
    input_tensor = Input(shape=(image_size[0], image_size[1], n_channels), name="input")
    i1_tensor = inception_module(input_tensor, SIZES[0], activation, lambda_regularization, name="i1")
    i2_tensor = inception_module(i1_tensor, SIZES[1], activation, lambda_regularization, name="i2")
    return input_tensor, flatten()(i2_tensor)


def create_inception_network(
    image_size: tuple[int, int],
    n_channels: int,
    lambda_regularization: Any = None,
    activation: str = "elu",
    flatten: Any = Flatten,
) -> Model:
    input_tensor, flatten_tensor = inception_body(image_size, n_channels, lambda_regularization, activation, flatten)
    dense1_tensor = Dense(units=100, activation=activation, name="D1")(flatten_tensor)
    dense2_tensor = Dense(units=20, activation=activation, name="D2")(dense1_tensor)
    output_tensor = Dense(units=1, activation="sigmoid", name="output")(dense2_tensor)
    opt = optimizers.Adam(lr=0.0001, amsgrad=False)
    model = Model(inputs=input_tensor, outputs=output_tensor)
    model.compile(loss="binary_crossentropy", optimizer=opt, metrics=["accuracy"])
    return model


def create_dual_input_network(image_size: tuple[int, int], n_channels: int, activation: str = "elu") -> Model:
    input_tensor, flatten_tensor = inception_body(image_size, n_channels, None, activation, Flatten)
    inception_model = Model(inputs=input_tensor, outputs=Dense(units=100, name="D1")(flatten_tensor))
    input_tensor1 = Input(shape=(image_size[0], image_size[1], n_channels), name="input1")
    input_tensor2 = Input(shape=(image_size[0], image_size[1], n_channels), name="input2")
    dense1 = inception_model(input_tensor1)
    dense2 = inception_model(input_tensor2)
    concatenation_tensor = Concatenate()([dense1, dense2])
    dense3_tensor = Dense(units=20, name="D3")(concatenation_tensor)
    output_tensor = Dense(units=1, activation="sigmoid", name="output")(dense3_tensor)
    model = Model(inputs=[input_tensor1, input_tensor2], outputs=output_tensor)
    model.compile(loss="binary_crossentropy", optimizer=optimizers.Adam(lr=0.0001, amsgrad=False), metrics=["accuracy"])
    return model


def module_rows(name: str, source: str, size: int, counts: tuple[int, ...]) -> dict[str, list[str]]:
    """One module's part of the lecture's table."""
    full, half = f"(None, {size}, {size}, ", f"(None, {size // 2}, {size // 2}, "
    filters, channels = (10, 3) if name == "i1" else (40, 40)
    one, three, five = (f"{count:,}" for count in counts)
    return {
        f"convB0_{name} (Conv2D)": [f"{full}{filters})", one, source],
        f"convC0_{name} (Conv2D)": [f"{full}{filters})", one, source],
        f"MAX_{name} (MaxPooling2D)": [f"{full}{channels})", "0", source],
        f"convA_{name} (Conv2D)": [f"{half}{filters})", one, source],
        f"convB1_{name} (Conv2D)": [f"{half}{filters})", three, f"convB0_{name}[0][0]"],
        f"convC1_{name} (Conv2D)": [f"{half}{filters})", five, f"convC0_{name}[0][0]"],
        f"convD0_{name} (Conv2D)": [f"{half}{filters})", one, f"MAX_{name}[0][0]"],
    }


def joined(name: str) -> str:
    return f"convA_{name}[0][0], convB1_{name}[0][0], convC1_{name}[0][0], convD0_{name}[0][0]"


def test_strided_network_has_the_table_of_the_lecture() -> None:
    model = create_inception_network((32, 32), 3)
    assert {name: rest for name, *rest in rows(model)} == {
        "input (InputLayer)": ["(None, 32, 32, 3)", "0", "-"],
        **module_rows("i1", "input[0][0]", 32, (40, 910, 2510)),
        "concatenate (Concatenate)": ["(None, 16, 16, 40)", "0", joined("i1")],
        **module_rows("i2", "concatenate[0][0]", 16, (1640, 14_440, 40_040)),
        "concatenate_1 (Concatenate)": ["(None, 8, 8, 160)", "0", joined("i2")],
        "flatten (Flatten)": ["(None, 10240)", "0", "concatenate_1[0][0]"],
        "D1 (Dense)": ["(None, 100)", "1,024,100", "flatten[0][0]"],
        "D2 (Dense)": ["(None, 20)", "2,020", "D1[0][0]"],
        "output (Dense)": ["(None, 1)", "21", "D2[0][0]"],
    }
    assert totals(model)[0].startswith("Total params: 1,090,761 ")
    assert create_inception_network((32, 32), 3, flatten=GlobalMaxPooling2D).count_params() == 82_761


def test_regularised_network_trains_on_what_it_is_given() -> None:
    model = create_inception_network((16, 16), 3, lambda_regularization=0.01)
    images, labels = np.random.random((8, 16, 16, 3)), np.random.randint(2, size=8)
    penalty = sum(0.01 * weight.square().sum().item() for name, weight in model.named_parameters() if weight.ndim == 4)
    with_penalty = model.evaluate(images, labels, verbose=0)[0]
    without = torch.nn.functional.binary_cross_entropy(
        model(torch.tensor(images, dtype=torch.float32)).squeeze(-1), torch.tensor(labels, dtype=torch.float32)
    )
    assert with_penalty == pytest.approx(without.item() + penalty, rel=1e-4)
    history = model.fit(images, labels, verbose=0)
    assert list(history.history) == ["accuracy", "loss"]


def test_two_images_through_one_network() -> None:
    model = create_dual_input_network((32, 32), 3)
    assert rows(model)[2:] == [
        ("functional (Functional)", "(None, 100)", "1,088,720", "input1[0][0], input2[0][0]"),
        ("concatenate (Concatenate)", "(None, 200)", "0", "functional[0][0], functional[1][0]"),
        ("D3 (Dense)", "(None, 20)", "4,020", "concatenate[0][0]"),
        ("output (Dense)", "(None, 1)", "21", "D3[0][0]"),
    ]
    assert [line.split(" (")[0] for line in totals(model)] == [
        "Total params: 1,092,761",
        "Trainable params: 1,092,761",
        "Non-trainable params: 0",
    ]

    ins1, ins2 = np.random.random((2, 8, 32, 32, 3)).astype("float32")
    outs = np.random.randint(2, size=8)
    model.fit([ins1, ins2], outs, verbose=0)
    pred = model.predict([ins1, ins2], verbose=0)
    ins_dict = {"input1": ins1, "input2": ins2}
    np.testing.assert_allclose(pred, model.predict(ins_dict, verbose=0), rtol=1e-5)
    model.fit(ins_dict, outs, verbose=0)
    assert not np.allclose(pred, model.predict(ins_dict, verbose=0))


def test_gradients_of_both_pathways_reach_the_shared_layer() -> None:
    input_tensor1 = Input(shape=(1000,), name="input1")
    input_tensor2 = Input(shape=(1000,), name="input2")
    dense = Dense(units=100, activation="elu")
    dense1_tensor = dense(input_tensor1)
    dense2_tensor = dense(input_tensor2)
    model = Model([input_tensor1, input_tensor2], [dense1_tensor, dense2_tensor])
    one, two = torch.randn(2, 4, 1000)
    gradients = []
    for used in ([0], [1], [0, 1]):
        outputs = model(one, two)
        (gradient,) = torch.autograd.grad(sum(outputs[index].sum() for index in used), [dense.weight])
        gradients.append(gradient)
    torch.testing.assert_close(gradients[2], gradients[0] + gradients[1])


def test_a_model_within_tells_of_its_inside_after_the_training() -> None:
    image = Input((8, 8, 1), name="image")
    state = Convolution2D(4, 3, activation="relu", name="state")(image)
    prediction = Dense(1, activation="sigmoid", name="prediction")(GlobalMaxPooling2D()(state))
    model_a = Model(image, {"prediction": prediction, "state": state}, name="A")
    image_b = Input((8, 8, 1), name="image")
    model_b = Model(image_b, model_a(image_b)["prediction"], name="B")

    images, labels = np.random.random((16, 8, 8, 1)).astype("float32"), np.random.randint(2, size=(16, 1))
    before = model_a.predict(images, verbose=0)
    model_b.compile("adam", "binary_crossentropy")
    model_b.fit(images, labels, epochs=3, verbose=0)
    after = model_a.predict(images, verbose=0)
    assert after["state"].shape == (16, 6, 6, 4)
    assert not np.allclose(before["state"], after["state"])
    np.testing.assert_allclose(after["prediction"], model_b.predict(images, verbose=0), rtol=1e-5)
