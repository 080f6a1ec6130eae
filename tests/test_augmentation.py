"""Image augmentation against Keras with the transformation forced, and the draws by what is seen of them."""

import copy

import keras
import numpy as np
import pytest
import torch

from torchfunc import Input, Model, layers
from torchfunc.models import clone_model, load_model, model_from_json

FORMATS = ["channels_last", "channels_first"]
IMAGES = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, size=(3, 9, 12, 3)).astype("float32"))
FILLS = ["reflect", "wrap", "constant", "nearest"]


def in_format(images, data_format):
    """Images that are channels last, in a data format."""
    return images if data_format == "channels_last" else images.permute(0, 3, 1, 2).contiguous()


def same_as_keras(name, kwargs, data_format="channels_last", atol=2e-3):
    images = in_format(IMAGES, data_format)
    if data_format == "channels_first":
        kwargs = {**kwargs, "data_format": data_format}
    ours = getattr(layers, name)(**kwargs).train()(images)
    theirs = getattr(keras.layers, name)(**kwargs)(images.clone(), training=True)
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)
    single = getattr(layers, name)(**kwargs).train()(images[0])
    torch.testing.assert_close(single, theirs[0], atol=atol, rtol=0)
    assert not torch.allclose(ours, images)


MOVES = {
    "RandomRotation": [{"factor": (0.07, 0.07)}, {"factor": (-0.3, -0.3)}],
    "RandomZoom": [
        {"height_factor": (0.4, 0.4)},
        {"height_factor": (-0.4, -0.4), "width_factor": (0.7, 0.7)},
    ],
    "RandomTranslation": [{"height_factor": (0.2, 0.2), "width_factor": (-0.37, -0.37)}],
}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("fill_mode", FILLS)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(("name", "kwargs"), [(name, each) for name in MOVES for each in MOVES[name]])
def test_pixels_are_moved_as_by_keras(name, kwargs, interpolation, fill_mode, data_format):
    kwargs = {**kwargs, "fill_mode": fill_mode, "interpolation": interpolation, "fill_value": 7.0}
    same_as_keras(name, kwargs, data_format)


@pytest.mark.parametrize("fill_mode", FILLS)
def test_shear_is_that_of_keras_to_one_of_two_sides(fill_mode):
    kwargs = {"x_factor": (0.3, 0.3), "y_factor": (0.15, 0.15), "fill_mode": fill_mode}
    theirs = keras.layers.RandomShear(**kwargs)
    sides = [
        theirs.transform_images(IMAGES, {"shear_factor": torch.tensor([[0.3, 0.15]] * 3) * side}) for side in (1, -1)
    ]
    many = torch.cat([layers.RandomShear(**kwargs)(IMAGES[:1]) for _ in range(20)])
    errors = torch.stack([(many - side[:1]).abs().amax((1, 2, 3)) for side in sides])
    assert errors.amin(0).max() < 2e-3
    assert (errors < 2e-3).any(1).all()


COLOURS = [
    ("RandomBrightness", {"factor": (0.3, 0.3)}),
    ("RandomBrightness", {"factor": (-0.4, -0.4), "value_range": (-10, 300)}),
    ("RandomSharpness", {"factor": (0.9, 0.9)}),
    ("RandomSharpness", {"factor": (0.1, 0.1)}),
    ("RandomSaturation", {"factor": (0.2, 0.2)}),
    ("RandomSaturation", {"factor": (0.45, 0.45)}),
    ("RandomPosterization", {"factor": (3, 3)}),
    ("RandomPosterization", {"factor": (6, 6), "value_range": (0, 300)}),
    ("RandomGrayscale", {"factor": 1.0}),
    ("RandomInvert", {"factor": (1.0, 1.0)}),
    ("Solarization", {}),
    ("AutoContrast", {}),
    ("AutoContrast", {"value_range": (0, 400)}),
]


@pytest.mark.parametrize(("name", "kwargs"), COLOURS)
def test_colours_are_changed_as_by_keras(name, kwargs):
    same_as_keras(name, kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        each
        for each in COLOURS
        if each[0] in ("RandomSharpness", "RandomSaturation", "RandomGrayscale", "RandomPosterization")
    ],
)
def test_colours_channels_first(name, kwargs):
    same_as_keras(name, kwargs, "channels_first")


def test_solarization_with_a_threshold():
    theirs = keras.layers.Solarization()
    given = {"additions": torch.full((3, 1, 1, 1), 0.2 * 255), "thresholds": torch.full((3, 1, 1, 1), 0.6 * 255)}
    ours = layers.Solarization((0.2, 0.2), (0.6, 0.6))(IMAGES)
    torch.testing.assert_close(ours, theirs.transform_images(IMAGES, given), atol=2e-3, rtol=0)


def test_hues_are_turned_to_one_of_two_sides():
    theirs = keras.layers.RandomHue(0.5)
    sides = [theirs.transform_images(IMAGES, {"factor": torch.full((3,), 0.15 * side)}) for side in (1, -1)]
    many = torch.cat([layers.RandomHue((0.3, 0.3))(IMAGES[:1]) for _ in range(20)])
    errors = torch.stack([(many - side[:1]).abs().amax((1, 2, 3)) for side in sides])
    assert errors.amin(0).max() < 2e-3
    assert (errors < 2e-3).any(1).all()


# Images that are large enough to be changed one at a time.
LARGE = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, size=(6, 48, 60, 3)).astype("float32"))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
def test_a_seed_draws_the_same_in_compiled_code():
    """There all images of a batch are changed at once."""
    model = torch.nn.ModuleList([
        layers.RandomFlip(seed=1),
        layers.RandomCrop(40, 33, seed=2),
        layers.RandomErasing((1.0, 1.0), seed=3),
        layers.RandomErasing(1.0, (0.2, 1.0), (1.0, 2.0, 3.0), seed=4),
        layers.RandomContrast(0.4, seed=5),
    ])  # fmt: skip

    def changed(model):
        return [layer(LARGE) for layer in model]

    changed(model)
    twin = copy.deepcopy(model)
    eager = changed(model)
    for one, other in zip(eager, torch.compile(changed, fullgraph=True, backend="eager")(twin), strict=True):
        torch.testing.assert_close(one, other)
    for layer in model:
        if getattr(layer, "fill_value", 0) is not None:  # noise is drawn in the order of the data format
            last, first = (type(layer)(**{**layer.get_config(), "data_format": each}) for each in FORMATS)
            torch.testing.assert_close(first(LARGE.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), last(LARGE))


def test_large_images_are_changed_one_at_a_time():
    noise = layers.RandomErasing((1.0, 1.0), (0.3, 0.6), value_range=(0, 10))(LARGE.requires_grad_())
    inside = (noise != LARGE).any(3)
    rows, columns = inside.any(2), inside.any(1)
    assert torch.equal(inside, rows[:, :, None] & columns[:, None, :])
    assert noise[inside].min() == 0
    assert 9.5 < noise[inside].max() <= 10
    # The gradient goes on where nothing was erased.
    (gradient,) = torch.autograd.grad(noise.sum(), LARGE)
    assert torch.equal(gradient[..., 0], 1 - inside.float())
    places = torch.arange(48 * 60, dtype=torch.float32).reshape(1, 48, 60, 1).expand(40, -1, -1, 3)
    crops = layers.RandomCrop(46, 57)(places)
    inside = torch.arange(46.0).reshape(1, 46, 1, 1) * 60 + torch.arange(57.0).reshape(1, 1, 57, 1)
    assert torch.equal(crops, (crops[:, :1, :1] + inside).expand_as(crops))
    assert 3 * 4 >= len(crops[:, 0, 0, 0].unique()) > 6
    # torch.vmap can't read what was drawn.
    draw = torch.vmap(layers.RandomCrop(46, 57).train(), randomness="different")
    assert draw(places[None]).shape == (1, 40, 46, 57, 3)


def test_contrast():
    """Keras' layer for `(lower, upper)` with one factor, and its documentation for a number."""
    theirs = keras.layers.RandomContrast(0.5)
    layer = layers.RandomContrast((0.0, 1.0), seed=1)
    scale = copy.deepcopy(layer)._draw(IMAGES, (1.0, 2.0))
    expected = theirs.transform_images(IMAGES, {"contrast_factor": scale.reshape(3, 1, 1, 1)})
    torch.testing.assert_close(layer(IMAGES), expected, atol=2e-3, rtol=0)
    drawn = layers.RandomContrast(0.4, value_range=(-1e9, 1e9))(IMAGES[:1].expand(4000, -1, -1, -1)[:, :2, :2])
    first = IMAGES[0, :2, :2]
    ratio = ((drawn - first.mean((0, 1))) / (first - first.mean((0, 1))))[:, 0, 0, 0]
    assert 0.6 <= ratio.min() < 0.61 < 1.39 < ratio.max() <= 1.4001


def test_flips():
    image = IMAGES[0]
    found = {
        "horizontal": [image, image.flip(1)],
        "vertical": [image, image.flip(0)],
        "horizontal_and_vertical": [image, image.flip(1), image.flip(0), image.flip(0, 1)],
    }
    for mode, outcomes in found.items():
        flipped = layers.RandomFlip(mode)(image.expand(1000, -1, -1, -1))
        counts = [(flipped == each).all(3).all(2).all(1).sum().item() for each in outcomes]
        assert sum(counts) == 1000
        # Five standard deviations.
        share = 1000 / len(outcomes)
        assert all(abs(count - share) < 80 for count in counts), counts


@pytest.mark.parametrize("data_format", FORMATS)
def test_crops_are_windows_at_places_of_their_own(data_format):
    places = torch.arange(9 * 12, dtype=torch.float32).reshape(1, 9, 12, 1).expand(500, -1, -1, 3)
    layer = layers.RandomCrop(6, 8, data_format=data_format)
    crops = layer(in_format(places, data_format))
    crops = crops if data_format == "channels_last" else crops.permute(0, 2, 3, 1)
    starts = crops[:, :1, :1]
    inside = torch.arange(6.0).reshape(1, 6, 1, 1) * 12 + torch.arange(8.0).reshape(1, 1, 8, 1)
    assert torch.equal(crops, (starts + inside).expand_as(crops))
    assert len(starts[..., 0].unique()) == 4 * 5
    assert layer.eval()(in_format(IMAGES, data_format)).shape == layer.compute_output_shape(
        tuple(in_format(IMAGES, data_format).shape)
    )


@pytest.mark.parametrize("size", [(9, 5), (12, 12), (20, 4), (9, 12)])
def test_crops_that_are_as_large_or_larger(size):
    expected = keras.layers.CenterCrop(*size)(IMAGES)
    for mode in (True, False):
        layer = layers.RandomCrop(*size).train(mode)
        if mode and size == (9, 5):
            assert layer(IMAGES).shape == expected.shape
        else:
            torch.testing.assert_close(layer(IMAGES), expected)


def test_boxes_are_erased():
    images = torch.full((2000, 20, 30, 3), 100.0)
    erased = layers.RandomErasing((1.0, 1.0), (0.1, 0.4), fill_value=(1.0, 2.0, 300.0))(images)
    box = erased != 100
    assert torch.equal(erased[box[..., 0]].unique(dim=0), torch.tensor([[1.0, 2.0, 255.0]]))
    rows, columns = box[..., 0].any(2), box[..., 0].any(1)
    assert torch.equal(box[..., 0], rows[:, :, None] & columns[:, None, :])
    # The sides are the roots of numbers in [0.1, 0.4]; a pixel more or less by rounding.
    assert rows.sum(1).float().mean() / 20 == pytest.approx(0.4926, abs=0.02)
    assert columns.sum(1).float().mean() / 30 == pytest.approx(0.4926, abs=0.02)
    assert layers.RandomErasing((0.25, 0.25), fill_value=0.0)(images).flatten(1).amin(1).eq(0).float().mean() == (
        pytest.approx(0.25, abs=0.05)
    )
    noise = layers.RandomErasing((1.0, 1.0), (1.0, 1.0), value_range=(0, 10))(images[:50])
    assert (noise.min(), noise.max()) == (0, 10)


RANDOM = [name for name in layers.__all__ if name.startswith("Random") or name == "Solarization"]
ARGUMENTS = {
    "RandomCrop": {"height": 5, "width": 6},
    "RandomZoom": {"height_factor": 0.3},
    "RandomShear": {"x_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.2},
    "Solarization": {"threshold_factor": 0.9},
    "RandomPosterization": {"factor": 6},
    **{name: {} for name in ("RandomFlip", "RandomErasing", "RandomInvert", "RandomGrayscale")},
}


def made(name, **kwargs):
    return getattr(layers, name)(**ARGUMENTS.get(name, {"factor": 0.4}), **kwargs)


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_draws_its_own_and_a_seed_reproduces(name):
    images = IMAGES[:1].expand(16, -1, -1, -1)
    layer, twin = made(name, seed=3), made(name, seed=3)
    first, second = layer(images), layer(images)
    assert torch.equal(first, twin(images))
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) > 1
    torch.manual_seed(0)
    free = made(name)(images)
    torch.manual_seed(0)
    assert torch.equal(made(name)(images), free)


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "RandomCrop"])
def test_nothing_happens_in_evaluation(name):
    layer = made(name).eval()
    assert layer(IMAGES) is IMAGES
    assert torch.equal(layer(IMAGES.to(torch.uint8)), IMAGES.to(torch.uint8).float())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
def test_in_a_model_that_is_trained_in_one_graph(traced):
    x = Input((12, 12, 3), dtype="uint8")
    augmented = layers.RandomRotation(0.1)(layers.RandomFlip()(layers.RandomCrop(8, 8)(layers.Rescaling(1 / 255)(x))))
    model = Model(x, layers.Dense(1)(layers.GlobalAveragePooling2D()(augmented)))
    model.compile("sgd", "mse", jit_compile=True)
    images = np.random.default_rng(0).integers(0, 256, size=(8, 12, 12, 3), dtype=np.uint8)
    history = model.fit(images, np.ones((8, 1), "float32"), batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    # Not to the bit: the step is compiled, and a second call of another graph may round otherwise.
    np.testing.assert_allclose(model.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype):
    for name in RANDOM:
        out = made(name, dtype=dtype)(IMAGES)
        assert out.dtype == getattr(torch, dtype)
        assert out.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.RandomFlip("sideways"), "for mode, got 'sideways'"),
        (lambda: layers.RandomRotation(2), r"RandomRotation takes a number from -1 to 1, .* for factor, got 2"),
        (lambda: layers.RandomZoom((0.1, 0.2, 0.3)), "for height_factor, got"),
        (lambda: layers.RandomTranslation(0.1, 1.5), "for width_factor, got 1.5"),
        (lambda: layers.RandomHue(-0.1), r"RandomHue takes a number from 0 to 1"),
        (lambda: layers.RandomRotation(0.1, fill_mode="mirror"), "for fill_mode, got 'mirror'"),
        (lambda: layers.RandomRotation(0.1, interpolation="bicubic"), "for interpolation, got 'bicubic'"),
        (lambda: layers.RandomBrightness(0.1, value_range=5), "two different numbers for value_range, got 5"),
        (lambda: layers.RandomErasing(fill_value=[1, 2]), "for fill_value, got"),
        (lambda: layers.RandomGrayscale(1.5), "RandomGrayscale takes a number from 0 to 1"),
        (lambda: layers.RandomFlip(seed=1.5), "an integer or None for seed, got 1.5"),
        (lambda: layers.RandomFlip()(torch.ones(2, 3)), "min_ndim=3, found ndim=2"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


WAYS = {
    "config": lambda model, path: Model.from_config(model.get_config()),
    "json": lambda model, path: model_from_json(model.to_json()),
    "clone": lambda model, path: clone_model(model),
    ".keras": lambda model, path: (model.save(path + ".keras"), load_model(path + ".keras"))[1],
    ".torchfunc": lambda model, path: (model.save(path + ".torchfunc"), load_model(path + ".torchfunc"))[1],
}


@pytest.mark.parametrize("way", WAYS)
def test_an_explicit_mode_is_kept_by_configs(way, tmp_path):
    inputs = Input((2, 2, 3))
    always, never, training = (layers.RandomInvert(1.0, value_range=(0, 1), name=name) for name in "abc")
    outputs = [always(inputs, training=True), never(inputs, training=False), training(inputs)]
    model = Model(inputs, outputs)
    for _ in range(2):
        model = WAYS[way](model, str(tmp_path / "model"))
        for mode in (True, False):
            found = [each.mean().item() for each in model(torch.zeros(1, 2, 2, 3), training=mode)]
            assert found == [1, 0, int(mode)]


def test_the_mode_in_a_file_of_keras(tmp_path):
    inputs = keras.Input((2, 2, 3))
    invert = [keras.layers.RandomInvert(1.0, value_range=(0, 1)) for _ in range(2)]
    keras.Model(inputs, [invert[0](inputs, training=False), invert[1](inputs)]).save(tmp_path / "model.keras")
    model = load_model(tmp_path / "model.keras")
    for mode in (True, False):
        assert [each.mean().item() for each in model(torch.zeros(1, 2, 2, 3), training=mode)] == [0, int(mode)]
