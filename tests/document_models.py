"""The models of Keras' guides to the functional API, small, for either library."""

from __future__ import annotations


def mnist(lib):
    inputs = lib.Input(shape=(12,))
    x = lib.layers.Dense(6, activation="relu")(inputs)
    x = lib.layers.Dense(6, activation="relu")(x)
    return lib.Model(inputs=inputs, outputs=lib.layers.Dense(4, activation="softmax")(x), name="mnist_model")


def encoder_and_decoder(lib):
    layers = lib.layers
    encoder_input = lib.Input(shape=(14, 14, 1), name="original_img")
    x = layers.Conv2D(4, 3, activation="relu")(encoder_input)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    encoder = lib.Model(encoder_input, layers.GlobalMaxPooling2D()(x), name="encoder")
    decoder_input = lib.Input(shape=(4,), name="encoded_img")
    x = layers.Reshape((2, 2, 1))(decoder_input)
    x = layers.Conv2DTranspose(4, 3, activation="relu")(x)
    x = layers.UpSampling2D(3)(x)
    decoder = lib.Model(decoder_input, layers.Conv2DTranspose(1, 3, activation="relu")(x), name="decoder")
    image = lib.Input(shape=(14, 14, 1), name="img")
    return lib.Model(image, decoder(encoder(image)), name="autoencoder")


def ensemble(lib):
    def get_model():
        inputs = lib.Input(shape=(8,))
        return lib.Model(inputs, lib.layers.Dense(1)(inputs))

    models = [get_model() for _ in range(3)]
    inputs = lib.Input(shape=(8,))
    return lib.Model(inputs=inputs, outputs=lib.layers.average([model(inputs) for model in models]))


def tickets(lib):
    layers = lib.layers
    title = lib.Input(shape=(None,), name="title", dtype="int32")
    body = lib.Input(shape=(None,), name="body", dtype="int32")
    tags = lib.Input(shape=(3,), name="tags")
    title_features = layers.LSTM(4)(layers.Embedding(10, 5)(title))
    body_features = layers.LSTM(3)(layers.Embedding(10, 5)(body))
    x = layers.concatenate([title_features, body_features, tags])
    priority = layers.Dense(1, name="priority")(x)
    return lib.Model([title, body, tags], {"priority": priority, "department": layers.Dense(4, name="department")(x)})


def toy_resnet(lib):
    layers = lib.layers
    inputs = lib.Input(shape=(12, 12, 3), name="img")
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    block_1 = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(4, 3, activation="relu", padding="same")(block_1)
    block_2 = layers.add([layers.Conv2D(4, 3, activation="relu", padding="same")(x), block_1])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(block_2))
    x = layers.Dropout(0.5)(layers.Dense(5, activation="relu")(x))
    return lib.Model(inputs, layers.Dense(3)(x), name="toy_resnet")


def shared_embedding(lib):
    embedding = lib.layers.Embedding(10, 4)
    a, b = lib.Input(shape=(None,), dtype="int32"), lib.Input(shape=(None,), dtype="int32")
    return lib.Model([a, b], [embedding(a), embedding(b)])


def tweets(lib):
    a, b = lib.Input((7, 5)), lib.Input((7, 5))
    shared = lib.layers.LSTM(4)
    merged = lib.layers.concatenate([shared(a), shared(b)], axis=-1)
    return lib.Model([a, b], lib.layers.Dense(1, activation="sigmoid")(merged))


def headline(lib):
    layers = lib.layers
    main, other = lib.Input((6,), dtype="int32", name="main_input"), lib.Input((5,), name="aux_input")
    hidden = layers.LSTM(4)(layers.Embedding(output_dim=5, input_dim=10)(main))
    early = layers.Dense(1, activation="sigmoid", name="aux_output")(hidden)
    x = layers.Dense(6, activation="relu")(layers.concatenate([hidden, other]))
    return lib.Model([main, other], [layers.Dense(1, activation="sigmoid", name="main_output")(x), early])


def inception(lib):
    layers = lib.layers
    image = lib.Input(shape=(6, 6, 3))
    first = layers.Conv2D(4, (3, 3), padding="same", activation="relu")(layers.Conv2D(4, (1, 1), padding="same")(image))
    second = layers.Conv2D(4, (5, 5), padding="same", activation="relu")(layers.Conv2D(4, (1, 1))(image))
    third = layers.Conv2D(4, (1, 1))(layers.MaxPooling2D((3, 3), strides=(1, 1), padding="same")(image))
    return lib.Model(image, layers.concatenate([first, second, third], axis=1))


def same_digit(lib):
    layers = lib.layers
    digit = lib.Input(shape=(9, 9, 1))
    x = layers.MaxPooling2D((2, 2))(layers.Conv2D(3, (3, 3))(digit))
    vision = lib.Model(digit, layers.Flatten()(x))
    a, b = lib.Input(shape=(9, 9, 1)), lib.Input(shape=(9, 9, 1))
    return lib.Model([a, b], layers.Dense(1, activation="sigmoid")(layers.concatenate([vision(a), vision(b)])))


def video_question(lib):
    layers = lib.layers
    vision = lib.Sequential([lib.Input((8, 8, 3)), layers.Conv2D(3, (3, 3), activation="relu", padding="same")])
    vision.add(layers.MaxPooling2D((2, 2)))
    vision.add(layers.Flatten())
    question = lib.Input(shape=(6,), dtype="int32")
    encoded_question = layers.LSTM(4)(layers.Embedding(input_dim=10, output_dim=5)(question))
    encoder = lib.Model(inputs=question, outputs=encoded_question)
    video = lib.Input(shape=(4, 8, 8, 3))
    encoded_video = layers.LSTM(4)(layers.TimeDistributed(vision)(video))
    asked = lib.Input(shape=(6,), dtype="int32")
    merged = layers.concatenate([encoded_video, encoder(asked)])
    return lib.Model([video, asked], layers.Dense(5, activation="softmax")(merged))


DOCUMENTS = {
    function.__name__: function
    for function in (
        *(mnist, encoder_and_decoder, ensemble, tickets, toy_resnet, shared_embedding, tweets, headline),
        *(inception, same_digit, video_question),
    )
}
