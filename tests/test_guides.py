"""Keras' guide to the functional API: each of its examples, with the figures it prints.

Names count from zero in each model here, where the guide's notebook counts on from example to example; data is small
and random where the guide downloads it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from guide_tables import rows, summary_lines, totals

from torchfunc import Input, Model, Sequential, layers, losses, ops, optimizers, utils


@pytest.fixture(autouse=True)
def seed() -> None:
    utils.set_random_seed(7)


def test_first_model_its_table_and_its_training(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = Input(shape=(784,))
    assert inputs.shape == (None, 784)
    assert inputs.dtype == torch.float32
    assert Input(shape=(32, 32, 3)).shape == (None, 32, 32, 3)
    dense = layers.Dense(64, activation="relu")
    x = dense(inputs)
    x = layers.Dense(64, activation="relu")(x)
    outputs = layers.Dense(10)(x)
    model = Model(inputs=inputs, outputs=outputs, name="mnist_model")

    assert summary_lines(model)[0] == 'Model: "mnist_model"'
    assert rows(model) == [
        ("input_layer (InputLayer)", "(None, 784)", "0"),
        ("dense (Dense)", "(None, 64)", "50,240"),
        ("dense_1 (Dense)", "(None, 64)", "4,160"),
        ("dense_2 (Dense)", "(None, 10)", "650"),
    ]
    assert totals(model) == [
        "Total params: 55,050 (215.04 KB)",
        "Trainable params: 55,050 (215.04 KB)",
        "Non-trainable params: 0 (0.00 B)",
    ]

    x_train = np.random.randint(256, size=(320, 28, 28)).reshape(320, 784).astype("float32") / 255
    y_train = np.random.randint(10, size=320)
    model.compile(
        loss=losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizers.RMSprop(),
        metrics=["accuracy"],
    )
    history = model.fit(x_train, y_train, batch_size=64, epochs=2, validation_split=0.2)
    test_scores = model.evaluate(x_train, y_train, verbose=2)
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert len(test_scores) == 2
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed
    assert "4/4" in printed
    assert re.search(r"10/10 - \d+s - ", printed)
    assert f"accuracy: {test_scores[1]:.4f} - loss: {test_scores[0]:.4f}" in printed


ENCODER_ROWS = [
    ("conv2d (Conv2D)", "(None, 26, 26, 16)", "160"),
    ("conv2d_1 (Conv2D)", "(None, 24, 24, 32)", "4,640"),
    ("max_pooling2d (MaxPooling2D)", "(None, 8, 8, 32)", "0"),
    ("conv2d_2 (Conv2D)", "(None, 6, 6, 32)", "9,248"),
    ("conv2d_3 (Conv2D)", "(None, 4, 4, 16)", "4,624"),
    ("global_max_pooling2d (GlobalMaxPooling2D)", "(None, 16)", "0"),
]
DECODER_ROWS = [
    ("reshape (Reshape)", "(None, 4, 4, 1)", "0"),
    ("conv2d_transpose (Conv2DTranspose)", "(None, 6, 6, 16)", "160"),
    ("conv2d_transpose_1 (Conv2DTranspose)", "(None, 8, 8, 32)", "4,640"),
    ("up_sampling2d (UpSampling2D)", "(None, 24, 24, 32)", "0"),
    ("conv2d_transpose_2 (Conv2DTranspose)", "(None, 26, 26, 16)", "4,624"),
    ("conv2d_transpose_3 (Conv2DTranspose)", "(None, 28, 28, 1)", "145"),
]


def encode(x: Any) -> Any:
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    return layers.GlobalMaxPooling2D()(x)


def decode(x: Any) -> Any:
    x = layers.Reshape((4, 4, 1))(x)
    x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
    x = layers.Conv2DTranspose(32, 3, activation="relu")(x)
    x = layers.UpSampling2D(3)(x)
    x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
    return layers.Conv2DTranspose(1, 3, activation="relu")(x)


def test_one_graph_of_layers_gives_several_models() -> None:
    encoder_input = Input(shape=(28, 28, 1), name="img")
    encoder_output = encode(encoder_input)
    encoder = Model(encoder_input, encoder_output, name="encoder")
    autoencoder = Model(encoder_input, decode(encoder_output), name="autoencoder")

    input_row = ("img (InputLayer)", "(None, 28, 28, 1)", "0")
    assert rows(encoder) == [input_row, *ENCODER_ROWS]
    assert rows(autoencoder) == [input_row, *ENCODER_ROWS, *DECODER_ROWS]
    assert totals(encoder)[0] == "Total params: 18,672 (72.94 KB)"
    assert totals(autoencoder)[0] == "Total params: 28,241 (110.32 KB)"

    images = np.random.random((8, 28, 28, 1)).astype("float32")
    before = encoder.predict(images, verbose=0)
    autoencoder.compile("adam", "mse")
    autoencoder.fit(images, images, verbose=0)
    assert not np.allclose(before, encoder.predict(images, verbose=0))


def test_models_are_called_like_layers() -> None:
    encoder_input = Input(shape=(28, 28, 1), name="original_img")
    encoder = Model(encoder_input, encode(encoder_input), name="encoder")
    decoder_input = Input(shape=(16,), name="encoded_img")
    decoder = Model(decoder_input, decode(decoder_input), name="decoder")
    autoencoder_input = Input(shape=(28, 28, 1), name="img")
    encoded_img = encoder(autoencoder_input)
    decoded_img = decoder(encoded_img)
    autoencoder = Model(autoencoder_input, decoded_img, name="autoencoder")

    assert rows(encoder) == [("original_img (InputLayer)", "(None, 28, 28, 1)", "0"), *ENCODER_ROWS]
    assert rows(decoder) == [("encoded_img (InputLayer)", "(None, 16)", "0"), *DECODER_ROWS]
    assert totals(decoder)[0] == "Total params: 9,569 (37.38 KB)"
    assert rows(autoencoder) == [
        ("img (InputLayer)", "(None, 28, 28, 1)", "0"),
        ("encoder (Functional)", "(None, 16)", "18,672"),
        ("decoder (Functional)", "(None, 28, 28, 1)", "9,569"),
    ]
    assert totals(autoencoder)[0] == "Total params: 28,241 (110.32 KB)"
    images = torch.rand(2, 28, 28, 1)
    torch.testing.assert_close(autoencoder(images), decoder(encoder(images)))


def test_ensemble_of_models() -> None:
    def get_model() -> Model:
        inputs = Input(shape=(128,))
        outputs = layers.Dense(1)(inputs)
        return Model(inputs, outputs)

    model1, model2, model3 = get_model(), get_model(), get_model()
    inputs = Input(shape=(128,))
    outputs = layers.average([model1(inputs), model2(inputs), model3(inputs)])
    ensemble_model = Model(inputs=inputs, outputs=outputs)
    x = torch.randn(4, 128)
    torch.testing.assert_close(ensemble_model(x), (model1(x) + model2(x) + model3(x)) / 3)


num_tags = 12
num_words = 10000
num_departments = 4


def ticket_model() -> Model:
    title_input = Input(shape=(None,), name="title")
    body_input = Input(shape=(None,), name="body")
    tags_input = Input(shape=(num_tags,), name="tags")
    title_features = layers.Embedding(num_words, 64)(title_input)
    body_features = layers.Embedding(num_words, 64)(body_input)
    title_features = layers.LSTM(128)(title_features)
    body_features = layers.LSTM(32)(body_features)
    x = layers.concatenate([title_features, body_features, tags_input])
    priority_pred = layers.Dense(1, name="priority")(x)
    department_pred = layers.Dense(num_departments, name="department")(x)
    return Model(
        inputs=[title_input, body_input, tags_input],
        outputs={"priority": priority_pred, "department": department_pred},
    )


@pytest.mark.parametrize(
    ("loss", "loss_weights"),
    [
        (
            [losses.BinaryCrossentropy(from_logits=True), losses.CategoricalCrossentropy(from_logits=True)],
            [1.0, 0.2],
        ),
        (
            {
                "priority": losses.BinaryCrossentropy(from_logits=True),
                "department": losses.CategoricalCrossentropy(from_logits=True),
            },
            {"priority": 1.0, "department": 0.2},
        ),
    ],
    ids=["lists", "dicts"],
)
def test_several_inputs_and_outputs(loss: Any, loss_weights: Any) -> None:
    model = ticket_model()
    assert model.count_params() == 1_392_097
    model.compile(optimizer=optimizers.RMSprop(1e-3), loss=loss, loss_weights=loss_weights)
    title_data = np.random.randint(num_words, size=(64, 12))
    body_data = np.random.randint(num_words, size=(64, 100))
    tags_data = np.random.randint(2, size=(64, num_tags)).astype("float32")
    priority_targets = np.random.random(size=(64, 1))
    dept_targets = np.random.randint(2, size=(64, num_departments))
    history = model.fit(
        {"title": title_data, "body": body_data, "tags": tags_data},
        {"priority": priority_targets, "department": dept_targets},
        epochs=2,
        batch_size=32,
        verbose=0,
    )
    logs = history.history
    assert set(logs) == {"loss", "priority_loss", "department_loss"}
    np.testing.assert_allclose(
        logs["loss"], np.array(logs["priority_loss"]) + 0.2 * np.array(logs["department_loss"]), rtol=1e-5
    )
    predicted = model.predict([title_data[:3], body_data[:3], tags_data[:3]], verbose=0)
    assert {name: array.shape for name, array in predicted.items()} == {"priority": (3, 1), "department": (3, 4)}


def test_toy_resnet() -> None:
    inputs = Input(shape=(32, 32, 3), name="img")
    x = layers.Conv2D(32, 3, activation="relu")(inputs)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    block_1_output = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(block_1_output)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    block_2_output = layers.add([x, block_1_output])
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(block_2_output)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    block_3_output = layers.add([x, block_2_output])
    x = layers.Conv2D(64, 3, activation="relu")(block_3_output)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(10)(x)
    model = Model(inputs, outputs, name="toy_resnet")

    assert rows(model) == [
        ("img (InputLayer)", "(None, 32, 32, 3)", "0", "-"),
        ("conv2d (Conv2D)", "(None, 30, 30, 32)", "896", "img[0][0]"),
        ("conv2d_1 (Conv2D)", "(None, 28, 28, 64)", "18,496", "conv2d[0][0]"),
        ("max_pooling2d (MaxPooling2D)", "(None, 9, 9, 64)", "0", "conv2d_1[0][0]"),
        ("conv2d_2 (Conv2D)", "(None, 9, 9, 64)", "36,928", "max_pooling2d[0][0]"),
        ("conv2d_3 (Conv2D)", "(None, 9, 9, 64)", "36,928", "conv2d_2[0][0]"),
        ("add (Add)", "(None, 9, 9, 64)", "0", "conv2d_3[0][0], max_pooling2d[0][0]"),
        ("conv2d_4 (Conv2D)", "(None, 9, 9, 64)", "36,928", "add[0][0]"),
        ("conv2d_5 (Conv2D)", "(None, 9, 9, 64)", "36,928", "conv2d_4[0][0]"),
        ("add_1 (Add)", "(None, 9, 9, 64)", "0", "conv2d_5[0][0], add[0][0]"),
        ("conv2d_6 (Conv2D)", "(None, 7, 7, 64)", "36,928", "add_1[0][0]"),
        ("global_average_pooling2d (GlobalAveragePooling2D)", "(None, 64)", "0", "conv2d_6[0][0]"),
        ("dense (Dense)", "(None, 256)", "16,640", "global_average_pooling2d[0][0]"),
        ("dropout (Dropout)", "(None, 256)", "0", "dense[0][0]"),
        ("dense_1 (Dense)", "(None, 10)", "2,570", "dropout[0][0]"),
    ]
    assert totals(model)[0] == "Total params: 223,242 (872.04 KB)"

    x_train = np.random.randint(256, size=(40, 32, 32, 3)).astype("float32") / 255.0
    y_train = utils.to_categorical(np.random.randint(10, size=(40, 1)), 10)
    model.compile(
        optimizer=optimizers.RMSprop(1e-3),
        loss=losses.CategoricalCrossentropy(from_logits=True),
        metrics=["acc"],
    )
    history = model.fit(x_train, y_train, batch_size=16, epochs=1, validation_split=0.2, verbose=0)
    assert list(history.history) == ["acc", "loss", "val_acc", "val_loss"]


def test_shared_layer_encodes_both_inputs() -> None:
    shared_embedding = layers.Embedding(1000, 128)
    text_input_a = Input(shape=(None,), dtype="int32")
    text_input_b = Input(shape=(None,), dtype="int32")
    encoded_input_a = shared_embedding(text_input_a)
    encoded_input_b = shared_embedding(text_input_b)
    model = Model([text_input_a, text_input_b], [encoded_input_a, encoded_input_b])
    assert model.count_params() == 128_000
    words = torch.tensor([[3, 1, 4]])
    first, second = model([words, words])
    assert torch.equal(first, second)


def test_features_from_inside_a_model() -> None:
    # In the place of VGG19, whose weights are a download: the same kind of network, small.
    blocks = [layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    vgg = Sequential([Input((16, 16, 3)), *blocks, layers.Dense(10, activation="softmax")])
    features_list = [layer.output for layer in vgg.layers]
    feat_extraction_model = Model(inputs=vgg.input, outputs=features_list)
    img = np.random.random((1, 16, 16, 3)).astype("float32")
    extracted_features = feat_extraction_model(img)
    assert [tuple(feature.shape) for feature in extracted_features] == [
        (1, 16, 16, 8),
        (1, 8, 8, 8),
        (1, 512),
        (1, 10),
    ]
    torch.testing.assert_close(extracted_features[-1], vgg(img))


class CustomDense(layers.Layer):
    def __init__(self, units: int = 32) -> None:
        super().__init__()
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.w = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer="random_normal",
            trainable=True,
        )
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal", trainable=True)

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, self.w) + self.b

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units}


def test_custom_layer_and_its_config() -> None:
    inputs = Input((4,))
    outputs = CustomDense(10)(inputs)
    model = Model(inputs, outputs)
    assert outputs.shape == (None, 10)
    assert model.count_params() == 50
    config = model.get_config()
    new_model = Model.from_config(config, custom_objects={"CustomDense": CustomDense})
    new_model.load_state_dict(model.state_dict())
    x = torch.randn(3, 4)
    torch.testing.assert_close(new_model(x), model(x))


def test_functional_and_subclassed_models_do_the_same() -> None:
    inputs = Input(shape=(32,))
    x = layers.Dense(64, activation="relu")(inputs)
    outputs = layers.Dense(10)(x)
    functional = Model(inputs, outputs)

    class MLP(Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense_1 = layers.Dense(64, activation="relu")
            self.dense_2 = layers.Dense(10)

        def call(self, inputs: Any) -> Any:
            x = self.dense_1(inputs)
            return self.dense_2(x)

    mlp = MLP()
    _ = mlp(ops.zeros((1, 32)))
    assert mlp.count_params() == functional.count_params() == 2762
    mlp.set_weights(functional.get_weights())
    x = torch.randn(3, 32)
    torch.testing.assert_close(mlp(x), functional(x))


units = 32
timesteps = 10
input_dim = 5
batch_size = 16


class CustomRNN(layers.Layer):
    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.units = units
        self.projection_1 = layers.Dense(units=units, activation="tanh")
        self.projection_2 = layers.Dense(units=units, activation="tanh")
        self.classifier = classifier

    def call(self, inputs: Any) -> Any:
        outputs = []
        state = ops.zeros(shape=(inputs.shape[0], self.units))
        for t in range(inputs.shape[1]):
            x = inputs[:, t, :]
            h = self.projection_1(x)
            y = h + self.projection_2(state)
            state = y
            outputs.append(y)
        features = ops.stack(outputs, axis=1)
        assert features.shape == (inputs.shape[0], inputs.shape[1], units)
        return self.classifier(features)


def test_functional_model_within_a_custom_layer() -> None:
    inputs = Input((None, units))
    x = layers.GlobalAveragePooling1D()(inputs)
    outputs = layers.Dense(1)(x)
    model = Model(inputs, outputs)
    rnn_model = CustomRNN(model)
    assert rnn_model(ops.zeros((1, timesteps, input_dim))).shape == (1, 1)
    assert rnn_model.count_params() == 6 * 32 + 33 * 32 + 33


def test_custom_layer_within_a_functional_model() -> None:
    inputs = Input(batch_shape=(batch_size, timesteps, input_dim))
    x = layers.Conv1D(32, 3)(inputs)
    outputs = CustomRNN(layers.Dense(1))(x)
    model = Model(inputs, outputs)
    assert model.output_shape == (batch_size, timesteps - 2, 1)
    assert model(torch.randn(batch_size, timesteps, input_dim)).shape == (batch_size, timesteps - 2, 1)
    rnn_model = CustomRNN(layers.Dense(1))
    assert rnn_model(ops.zeros((1, 10, 5))).shape == (1, 10, 1)
