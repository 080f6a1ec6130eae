"""What Keras says of the networks in `keras.applications`: `python tests/application_table.py` writes it down.

For each: the parameters, a digest of the layers' names, the file of ImageNet's weights with the top and that without
(URL, md5), and features of two images of noise under weights that are computed, not drawn.
"""

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("application_table.json")
# The smallest images that a network takes, if they are not of 32 x 32.
LEAST = {"InceptionV3": 75, "Xception": 71}
# One of each family, whose features are recorded.
SMALL = ("VGG16", "ResNet50", "ResNet50V2", "InceptionV3", "Xception", "MobileNetV2", "EfficientNetB0")


def digest(model):
    return hashlib.sha256("\n".join(layer.name for layer in model.layers).encode()).hexdigest()[:16]


def small(kind, name):
    """A network without its top on small images, its weights filled in, and what it makes of noise."""
    size = LEAST.get(name, 32)
    model = kind(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    rng = np.random.default_rng(0)
    model.set_weights([_filled(rng, weight) for weight in model.get_weights()])
    images = rng.uniform(0, 2, (2, size, size, 3)).astype("float32")
    return np.asarray(model.predict(images, verbose=0), "float64")


def _filled(rng, weight):
    noise = rng.random(weight.shape, dtype="float32")
    if weight.ndim < 2:
        return (0.9 + 0.2 * noise).astype(weight.dtype)
    # (In a depthwise kernel one channel goes in.)
    fan = np.prod(weight.shape[:2] if weight.shape[-1] == 1 else weight.shape[:-1])
    return ((noise - 0.5) * np.sqrt(24 / fan)).astype("float32")


def main():
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    from torchfunc import applications

    files = {}

    def get_file(fname, origin, file_hash=None, **kwargs):
        files[current].append([origin, file_hash or ""])
        return os.devnull

    keras.src.utils.file_utils.get_file = get_file
    keras.Model.load_weights = lambda *args, **kwargs: None
    table = {}
    for name in filter(str.isalnum, applications.__all__):
        if not name[0].isupper():
            continue
        current, kind = name, getattr(keras.applications, name)
        files[current] = []
        keras.backend.clear_session()
        model = kind()
        with suppress(ValueError):
            kind(include_top=False, input_shape=model.input_shape[1:])
        table[name] = {"parameters": model.count_params(), "names": digest(model), "files": files[name]}
        if name in SMALL:
            table[name]["features"] = small(kind, name)[:, ::97].round(9).tolist()
        print(name, file=sys.stderr)
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
