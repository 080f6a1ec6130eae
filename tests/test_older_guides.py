"""The older guides and the lecture: each of their examples, with the figures they print.

R's examples are written in Python here; what they download or leave open is small and random.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from guide_tables import rows, totals

from torchfunc import Input, Model, Sequential, layers, utils
from torchfunc.layers import (
    LSTM,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    MaxPooling2D,
    TimeDistributed,
    concatenate,
)

ILL_DEFINED = (
    'Layer {} has multiple inbound nodes, hence the notion of "layer output" is ill-defined. '
    r"Use `get_output_at\(node_index\)` instead."
)


@pytest.fixture(autouse=True)
def seed() -> None:
    utils.set_random_seed(7)


# "Getting started with the Keras functional API", in Python and in R


def test_densely_connected_network() -> None:
    inputs = Input(shape=(784,))
    x = Dense(64, activation="relu")(inputs)
    x = Dense(64, activation="relu")(x)
    predictions = Dense(10, activation="softmax")(x)
    model = Model(inputs=inputs, outputs=predictions)
    model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
    assert model.count_params() == 55_050
    data = np.random.random((64, 784))
    history = model.fit(data, utils.to_categorical(np.random.randint(10, size=64), 10), verbose=0)
    assert list(history.history) == ["accuracy", "loss"]

    x = Input(shape=(784,))
    y = model(x)
    assert y.shape == (None, 10)
    input_sequences = Input(shape=(20, 784))
    processed_sequences = TimeDistributed(model)(input_sequences)
    assert processed_sequences.shape == (None, 20, 10)
    video = torch.rand(2, 20, 784)
    frames = Model(input_sequences, processed_sequences)(video)
    torch.testing.assert_close(frames, model(video.reshape(40, 784)).reshape(2, 20, 10))


def headline_model() -> Model:
    main_input = Input(shape=(100,), dtype="int32", name="main_input")
    lstm_out = LSTM(units=32)(Embedding(input_dim=10000, output_dim=512, input_length=100)(main_input))
    auxiliary_output = Dense(units=1, activation="sigmoid", name="aux_output")(lstm_out)
    auxiliary_input = Input(shape=(5,), name="aux_input")
    x = concatenate([lstm_out, auxiliary_input])
    for _ in range(3):
        x = Dense(units=64, activation="relu")(x)
    main_output = Dense(units=1, activation="sigmoid", name="main_output")(x)
    return Model(inputs=[main_input, auxiliary_input], outputs=[main_output, auxiliary_output])


def test_headline_model_table() -> None:
    assert {name: rest for name, *rest in rows(headline_model())} == {
        "main_input (InputLayer)": ["(None, 100)", "0", "-"],
        "embedding (Embedding)": ["(None, 100, 512)", "5,120,000", "main_input[0][0]"],
        "lstm (LSTM)": ["(None, 32)", "69,760", "embedding[0][0]"],
        "aux_input (InputLayer)": ["(None, 5)", "0", "-"],
        "concatenate (Concatenate)": ["(None, 37)", "0", "lstm[0][0], aux_input[0][0]"],
        "dense (Dense)": ["(None, 64)", "2,432", "concatenate[0][0]"],
        "dense_1 (Dense)": ["(None, 64)", "4,160", "dense[0][0]"],
        "dense_2 (Dense)": ["(None, 64)", "4,160", "dense_1[0][0]"],
        "main_output (Dense)": ["(None, 1)", "65", "dense_2[0][0]"],
        "aux_output (Dense)": ["(None, 1)", "33", "lstm[0][0]"],
    }
    assert [line.split(" (")[0] for line in totals(headline_model())] == [
        "Total params: 5,200,610",
        "Trainable params: 5,200,610",
        "Non-trainable params: 0",
    ]


def test_headline_model_trains_by_position_and_by_name() -> None:
    model = headline_model()
    headline_data = np.random.randint(1, 10000, size=(32, 100))
    additional_data = np.random.random((32, 5))
    labels = np.random.randint(2, size=(32, 1))
    model.compile(optimizer="rmsprop", loss="binary_crossentropy", loss_weights=[1.0, 0.2])
    history = model.fit(
        x=[headline_data, additional_data], y=[labels, labels], epochs=1, batch_size=32, verbose=0
    ).history
    main, aux = history["main_output_loss"][0], history["aux_output_loss"][0]
    assert history["loss"][0] == pytest.approx(main + 0.2 * aux, rel=1e-5)

    model.compile(
        optimizer="rmsprop",
        loss={"main_output": "binary_crossentropy", "aux_output": "binary_crossentropy"},
        loss_weights={"main_output": 1.0, "aux_output": 0.2},
    )
    model.fit(
        x={"main_input": headline_data, "aux_input": additional_data},
        y={"main_output": labels, "aux_output": labels},
        epochs=1,
        batch_size=32,
        verbose=0,
    )


def test_two_inputs_two_outputs() -> None:
    x_in = Input(shape=(100,), name="x_in")
    y_in = Input(shape=(100,), name="y_in")
    x = Dense(64, activation="relu")(x_in)
    y = Dense(64, activation="relu")(y_in)
    z = concatenate([x, y])
    x = Dense(1, activation="sigmoid", name="x_out")(z)
    y = Dense(10, activation="softmax", name="y_out")(z)
    model = Model(inputs=[x_in, y_in], outputs=[x, y])
    data = np.random.random((100, 100))
    xs = np.random.randint(2, size=(100, 1))
    ys = utils.to_categorical(np.random.randint(10, size=(100, 1)), 10)

    model.compile(
        optimizer="rmsprop", loss=["binary_crossentropy", "categorical_crossentropy"], loss_weights=[1.0, 0.2]
    )
    first = model.fit([data, data], [xs, ys], epochs=1, batch_size=32, verbose=0)
    model.compile(
        optimizer="rmsprop",
        loss={"x_out": "binary_crossentropy", "y_out": "categorical_crossentropy"},
        loss_weights={"x_out": 1.0, "y_out": 0.2},
    )
    second = model.fit({"x_in": data, "y_in": data}, {"x_out": xs, "y_out": ys}, epochs=1, batch_size=32, verbose=0)
    assert set(first.history) == set(second.history) == {"loss", "x_out_loss", "y_out_loss"}


def test_two_tweets_through_one_lstm() -> None:
    tweet_a = Input(shape=(280, 256))
    tweet_b = Input(shape=(280, 256))
    shared_lstm = LSTM(units=64)
    encoded_a = shared_lstm(tweet_a)
    encoded_b = shared_lstm(tweet_b)
    predictions = Dense(units=1, activation="sigmoid")(concatenate([encoded_a, encoded_b], axis=-1))
    model = Model(inputs=[tweet_a, tweet_b], outputs=predictions)
    assert model.count_params() == 4 * 64 * (256 + 64 + 1) + 129
    model.compile(optimizer="rmsprop", loss="binary_crossentropy", metrics=["accuracy"])
    data_a, data_b = np.random.randint(2, size=(2, 8, 280, 256))
    model.fit([data_a, data_b], np.random.randint(2, size=8), epochs=1, verbose=0)


def test_a_layer_called_twice_in_a_row() -> None:
    inputs = Input(shape=(64,))
    layer_we_share = Dense(64, activation="relu")
    x = layer_we_share(inputs)
    x = layer_we_share(x)
    predictions = Dense(10, activation="softmax")(x)
    model = Model(inputs=inputs, outputs=predictions)
    assert model.count_params() == 64 * 65 + 650
    assert rows(model)[1][-1] == "input_layer[0][0], dense[0][0]"


def test_one_node_has_the_output_of_the_layer() -> None:
    a = Input(shape=(140, 256))
    dense = Dense(32)
    affine_a = dense(a)
    assert dense.output == affine_a
    lstm = LSTM(units=32)
    encoded_a = lstm(a)
    assert lstm.output == encoded_a
    assert lstm.input_shape == (None, 140, 256)


@pytest.mark.parametrize("make", [lambda: Dense(32), lambda: LSTM(units=32)], ids=["dense", "lstm"])
def test_two_nodes_have_an_output_each(make: Any) -> None:
    a = Input(shape=(140, 256))
    b = Input(shape=(140, 256))
    layer = make()
    output_a = layer(a)
    output_b = layer(b)
    with pytest.raises(AttributeError, match=ILL_DEFINED.format(layer.name)):
        _ = layer.output
    assert layer.get_output_at(0) == output_a
    assert layer.get_output_at(1) == output_b
    assert layer.output_shape == output_a.shape


def test_two_nodes_of_two_shapes() -> None:
    a = Input(shape=(32, 32, 3))
    b = Input(shape=(64, 64, 3))
    conv = Conv2D(16, (3, 3), padding="same")
    _ = conv(a)
    assert conv.input_shape == (None, 32, 32, 3)
    _ = conv(b)
    with pytest.raises(AttributeError, match="conv2d"):
        _ = conv.input_shape
    assert conv.get_input_shape_at(0) == (None, 32, 32, 3)
    assert conv.get_input_shape_at(1) == (None, 64, 64, 3)
    assert conv.get_output_shape_at(1) == (None, 64, 64, 16)


def test_inception_module_and_residual_connection() -> None:
    input_img = Input(shape=(256, 256, 3))
    tower_1 = Conv2D(64, (1, 1), padding="same", activation="relu")(input_img)
    tower_1 = Conv2D(64, (3, 3), padding="same", activation="relu")(tower_1)
    tower_2 = Conv2D(64, (1, 1), padding="same", activation="relu")(input_img)
    tower_2 = Conv2D(64, (5, 5), padding="same", activation="relu")(tower_2)
    tower_3 = MaxPooling2D((3, 3), strides=(1, 1), padding="same")(input_img)
    tower_3 = Conv2D(64, (1, 1), padding="same", activation="relu")(tower_3)
    output = concatenate([tower_1, tower_2, tower_3], axis=1)
    assert output.shape == (None, 768, 256, 64)

    x = Input(shape=(256, 256, 3))
    y = Conv2D(3, (3, 3), padding="same")(x)
    z = layers.add([x, y])
    image = torch.rand(1, 256, 256, 3)
    summed, convolved = Model(x, [z, y])(image)
    torch.testing.assert_close(summed, image + convolved)


def test_shared_vision_model() -> None:
    digit_input = Input(shape=(27, 27, 1))
    x = Conv2D(64, (3, 3))(digit_input)
    x = Conv2D(64, (3, 3))(x)
    x = MaxPooling2D((2, 2))(x)
    out = Flatten()(x)
    vision_model = Model(digit_input, out)
    digit_a = Input(shape=(27, 27, 1))
    digit_b = Input(shape=(27, 27, 1))
    out_a = vision_model(digit_a)
    out_b = vision_model(digit_b)
    out = Dense(1, activation="sigmoid")(concatenate([out_a, out_b]))
    classification_model = Model([digit_a, digit_b], out)
    assert vision_model.output_shape == (None, 11 * 11 * 64)
    assert classification_model.count_params() == 640 + 36_928 + 2 * 7744 + 1
    assert classification_model(torch.rand(2, 27, 27, 1), torch.rand(2, 27, 27, 1)).shape == (2, 1)


def question_models(size: int, length: int, frames: int, answers: int) -> tuple[Sequential, Model, Model]:
    """The vision model, the one that answers about an image, and the one that answers about a video."""
    vision_model = Sequential()
    vision_model.add(Conv2D(64, (3, 3), activation="relu", padding="same", input_shape=(size, size, 3)))
    vision_model.add(Conv2D(64, (3, 3), activation="relu"))
    vision_model.add(MaxPooling2D((2, 2)))
    vision_model.add(Conv2D(128, (3, 3), activation="relu", padding="same"))
    vision_model.add(Conv2D(128, (3, 3), activation="relu"))
    vision_model.add(MaxPooling2D((2, 2)))
    vision_model.add(Conv2D(256, (3, 3), activation="relu", padding="same"))
    vision_model.add(Conv2D(256, (3, 3), activation="relu"))
    vision_model.add(Conv2D(256, (3, 3), activation="relu"))
    vision_model.add(MaxPooling2D((2, 2)))
    vision_model.add(Flatten())

    image_input = Input(shape=(size, size, 3))
    encoded_image = vision_model(image_input)
    question_input = Input(shape=(length,), dtype="int32")
    embedded_question = Embedding(input_dim=10000, output_dim=256, input_length=length)(question_input)
    encoded_question = LSTM(256)(embedded_question)
    output = Dense(answers, activation="softmax")(concatenate([encoded_question, encoded_image]))
    vqa_model = Model(inputs=[image_input, question_input], outputs=output)

    video_input = Input(shape=(frames, size, size, 3))
    encoded_video = LSTM(256)(TimeDistributed(vision_model)(video_input))
    question_encoder = Model(inputs=question_input, outputs=encoded_question)
    video_question_input = Input(shape=(length,), dtype="int32")
    encoded_video_question = question_encoder(video_question_input)
    output = Dense(answers, activation="softmax")(concatenate([encoded_video, encoded_video_question]))
    return vision_model, vqa_model, Model(inputs=[video_input, video_question_input], outputs=output)


def test_visual_question_answering_has_the_size_it_should() -> None:
    with torch.device("meta"):  # 330 million weights that nobody fills
        vision_model, vqa_model, video_qa_model = question_models(224, 100, 100, 1000)
    vision, question, flat = 1_735_488, 2_560_000 + 4 * 256 * (256 + 256 + 1), 25 * 25 * 256
    assert vision_model.count_params() == vision
    assert vision_model.output_shape == (None, flat)
    assert vqa_model.count_params() == vision + question + (256 + flat + 1) * 1000
    assert video_qa_model.count_params() == vision + question + 4 * 256 * (flat + 256 + 1) + (512 + 1) * 1000
    assert video_qa_model.output_shape == (None, 1000)


def test_visual_question_answering_runs() -> None:
    vision_model, vqa_model, video_qa_model = question_models(32, 6, 3, 10)
    image = torch.rand(2, 32, 32, 3)
    question = torch.randint(1, 10000, (2, 6))
    torch.testing.assert_close(vqa_model(image, question).sum(-1), torch.ones(2))
    video = torch.rand(2, 3, 32, 32, 3)
    assert video_qa_model([video, question]).shape == (2, 10)
    shared = {id(weight) for weight in vision_model.parameters()}
    assert shared < {id(weight) for weight in vqa_model.parameters()}
    assert shared < {id(weight) for weight in video_qa_model.parameters()}


# "Introduction to functional API"


def test_sequential_and_functional_side_by_side() -> None:
    seq_model = Sequential()
    seq_model.add(layers.Dense(32, activation="relu", input_shape=(64,)))
    seq_model.add(layers.Dense(32, activation="relu"))
    seq_model.add(layers.Dense(10, activation="softmax"))
    input_tensor = Input(shape=(64,))
    x = layers.Dense(32, activation="relu")(input_tensor)
    x = layers.Dense(32, activation="relu")(x)
    output_tensor = layers.Dense(10, activation="softmax")(x)
    model = Model(input_tensor, output_tensor)
    dense_rows = [
        ("dense (Dense)", "(None, 32)", "2,080"),
        ("dense_1 (Dense)", "(None, 32)", "1,056"),
        ("dense_2 (Dense)", "(None, 10)", "330"),
    ]
    assert rows(model) == [("input_layer (InputLayer)", "(None, 64)", "0"), *dense_rows]
    assert rows(seq_model) == dense_rows
    assert totals(model)[0] == totals(seq_model)[0] == "Total params: 3,466 (13.54 KB)"

    model.compile(optimizer="rmsprop", loss="categorical_crossentropy")
    x_train = np.random.random((100, 64))
    y_train = np.random.random((100, 10))
    model.fit(x_train, y_train, verbose=0)
    score = model.evaluate(x_train, y_train, verbose=0)
    assert isinstance(score, float)
    predictions = model.predict(x_train, verbose=0)
    assert predictions[:2,].shape == (2, 10)
    assert predictions.dtype == np.float32


def test_question_answering_with_lists_and_dicts() -> None:
    text_vocabulary_size, question_vocabulary_size, answer_vocabulary_size = 100, 100, 500
    # The guide has input_dim and output_dim of Embedding the wrong way round; so it is here, with words below 64.
    text_input = Input(shape=(None,), dtype="int32", name="text")
    embedded_text = layers.Embedding(64, text_vocabulary_size)(text_input)
    encoded_text = layers.LSTM(32)(embedded_text)
    question_input = Input(shape=(None,), dtype="int32", name="question")
    embedded_question = layers.Embedding(64, question_vocabulary_size)(question_input)
    encoded_question = layers.LSTM(16)(embedded_question)
    concatenated = layers.concatenate([encoded_text, encoded_question], axis=-1)
    answer = layers.Dense(answer_vocabulary_size, activation="softmax")(concatenated)
    model = Model([text_input, question_input], answer)
    model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["acc"])

    text = np.random.randint(1, 64, size=(64, 20))
    question = np.random.randint(1, 64, size=(64, 20))
    answers = np.random.randint(0, 2, size=(64, answer_vocabulary_size))
    model.fit([text, question], answers, epochs=2, batch_size=32, verbose=0)
    history = model.fit({"text": text, "question": question}, answers, epochs=2, batch_size=32, verbose=0)
    assert list(history.history) == ["acc", "loss"]
    assert history.epoch == [0, 1]


def test_three_heads_with_three_losses() -> None:
    vocabulary_size = 500  # 50,000 in the guide
    num_income_groups = 10
    posts_input = Input(shape=(None,), dtype="int32", name="posts")
    embedded_posts = layers.Embedding(256, vocabulary_size)(posts_input)
    x = layers.Conv1D(128, 5, activation="relu")(embedded_posts)
    x = layers.MaxPooling1D(5)(x)
    x = layers.Conv1D(256, 5, activation="relu")(x)
    x = layers.Conv1D(256, 5, activation="relu")(x)
    x = layers.MaxPooling1D(5)(x)
    x = layers.Conv1D(256, 5, activation="relu")(x)
    x = layers.Conv1D(256, 5, activation="relu")(x)
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.Dense(128, activation="relu")(x)
    age_prediction = layers.Dense(1, name="age")(x)
    income_prediction = layers.Dense(num_income_groups, activation="softmax", name="income")(x)
    gender_prediction = layers.Dense(1, activation="sigmoid", name="gender")(x)
    model = Model(posts_input, [age_prediction, income_prediction, gender_prediction])

    posts = np.random.randint(256, size=(16, 300))
    age_targets = np.random.randint(80, size=(16, 1))
    income_targets = utils.to_categorical(np.random.randint(num_income_groups, size=16), num_income_groups)
    gender_targets = np.random.randint(2, size=(16, 1))
    targets = [age_targets, income_targets, gender_targets]
    by_name = dict(zip(("age", "income", "gender"), targets, strict=True))
    names = ["mse", "categorical_crossentropy", "binary_crossentropy"]
    model.compile(optimizer="rmsprop", loss=names)
    model.fit(posts, targets, epochs=1, batch_size=8, verbose=0)
    model.compile(optimizer="rmsprop", loss=names, loss_weights=[0.25, 1.0, 10.0])
    model.fit(posts, targets, epochs=1, batch_size=8, verbose=0)
    model.compile(
        optimizer="rmsprop",
        loss=dict(zip(by_name, names, strict=True)),
        loss_weights={"age": 0.25, "income": 1.0, "gender": 10.0},
    )
    logs = model.fit(posts, by_name, epochs=1, batch_size=8, verbose=0).history
    weighted = 0.25 * logs["age_loss"][0] + logs["income_loss"][0] + 10 * logs["gender_loss"][0]
    assert logs["loss"][0] == pytest.approx(weighted, rel=1e-5)
