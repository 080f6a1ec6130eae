"""Keras' names that are not here, and what to write instead.

`examples/keras_names.md` shows these beside the names that are here; `scripts/keras_names.py` writes it. Each text says
which package the name is left to, and the line to write, or why it is not planned.
"""

from __future__ import annotations

__all__ = ["ABSENT", "ABSENT_NAMESPACES", "instead_of"]

_FROM_TIMM = 'left to timm: `from_module(timm.create_model("{0}", pretrained=True), images)`'
_FROM_TORCHVISION = 'left to torchvision: `from_module(torchvision.models.{0}(weights="DEFAULT"), images)`'
_TRANSFORM = "left to torchvision: `torchvision.transforms.v2.{0}`, in the Dataset"
_ENCODER = "left to scikit-learn: `{0}`, before fit"
_ONE_BACKEND = "not planned: there is one backend, torch"
_PRECISION = 'left to compile: `compile(..., precision="bf16-mixed")`, or a layer\'s `dtype=`'
_TORCHAO = "left to torchao: `torchao.quantization.quantize_(model.to_torch(), ...)`"
_FOLDER = "left to torch: `DataLoader({0}, batch_size=32)`"
_TEXTS = 'left to datasets: `datasets.load_dataset("text", data_dir=folder)`'
_LEGACY = "not planned: Keras 3 has the name only to say that it is gone"

# By namespace; several names in one key share one answer.
ABSENT: dict[str, dict[str, str]] = {
    "": {
        "FloatDTypePolicy": _PRECISION,
        "Function": "left to Model: `Model(inputs, outputs)`",
        "Operation": "left to Layer: `class Mine(layers.Layer)`, or any function of torch tensors",
        "Quantizer": _TORCHAO,
        "RematScope": 'left to training: `model.compile(..., remat="auto")`, or `remat=[layer, "name", layers.Dense]`',
        "remat": "left to torch: `torch.utils.checkpoint.checkpoint(f, x, use_reentrant=False)` in a call",
        "StatelessScope": "left to torch: `torch.func.functional_call(model, weights, x)`",
        "SymbolicScope": "not planned: drawing starts with `Input`, wherever it is",
        "Variable": "left to Layer and torch: `layer.add_weight(...)`, `torch.nn.Parameter(...)`, `register_buffer`",
        "device": 'left to torch: `with torch.device("cuda"):`, `model.to("cuda")`',
        "name_scope": "not planned: names are counted within a model; `name=` gives a layer its own",
        "version": "left to Python: `torchfunc.__version__`",
    },
    "applications": {
        "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge": _FROM_TIMM.format("convnext_tiny"),
        "DenseNet121 DenseNet169 DenseNet201": _FROM_TORCHVISION.format("densenet121"),
        (
            "EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 "
            "EfficientNetV2L EfficientNetV2M EfficientNetV2S"
        ): _FROM_TORCHVISION.format("efficientnet_v2_s"),
        "InceptionResNetV2": _FROM_TIMM.format("inception_resnet_v2"),
        "MobileNet": _FROM_TIMM.format("mobilenetv1_100"),
        "MobileNetV3Large MobileNetV3Small": _FROM_TORCHVISION.format("mobilenet_v3_small"),
        "NASNetLarge NASNetMobile": _FROM_TIMM.format("nasnetalarge"),
    },
    "backend": {
        "get_uid": "left to Python: `next(itertools.count())`; layers are numbered within their model",
        "is_float_dtype is_int_dtype": "left to torch: `x.dtype.is_floating_point`",
        "result_type": "left to torch: `torch.promote_types(a.dtype, b.dtype)`",
    },
    "callbacks": {
        "OrbaxCheckpoint": "left to ModelCheckpoint: `callbacks.ModelCheckpoint(path)`, or `BackupAndRestore`",
        "RemoteMonitor": "left to a client of yours: `callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`",
    },
    "config": {
        "set_backend is_nnx_enabled": _ONE_BACKEND,
        "disable_flash_attention enable_flash_attention is_flash_attention_enabled": (
            "left to torch: `with torch.nn.attention.sdpa_kernel(backends):`"
        ),
        "enable_unsafe_deserialization": "not planned: no file holds code; `load_model(path, custom_objects={...})`",
        "max_epochs set_max_epochs max_steps_per_epoch set_max_steps_per_epoch": (
            "left to fit: `fit(..., epochs=1, steps_per_epoch=2)`"
        ),
    },
    "layers": {
        "AugMix RandAugment": _TRANSFORM.format("AugMix()"),
        "ContrastLimitedAdaptiveHistogramEqualization Equalization": _TRANSFORM.format("RandomEqualize()"),
        "CutMix MixUp": "left to torchvision: `torchvision.transforms.v2.MixUp(num_classes=10)`, in the `collate_fn`",
        "RandomColorDegeneration RandomColorJitter": "left to the layers of its parts: `RandomSaturation`, `RandomHue`",
        "RandomElasticTransform": _TRANSFORM.format("ElasticTransform()"),
        "RandomGaussianBlur": _TRANSFORM.format("GaussianBlur(5)"),
        "RandomPerspective": _TRANSFORM.format("RandomPerspective()"),
        "MaxNumBoundingBoxes": "left to torchvision: `torchvision.tv_tensors.BoundingBoxes`, in the Dataset",
        "FlaxLayer JaxLayer TFSMLayer": "not planned: other frameworks; any torch module is a layer",
        "HashedCrossing Hashing": _ENCODER.format('FeatureHasher(64, input_type="string")'),
        "IntegerLookup StringLookup": _ENCODER.format("OrdinalEncoder()"),
        "MelSpectrogram": "left to torchaudio: `torchaudio.transforms.MelSpectrogram(16000)(inputs)`, a module as any",
        "STFTSpectrogram": "left to torch: `torch.stft(inputs, 256, window=window, return_complex=True).abs()`",
        "Pipeline": "left to Sequential: `Sequential([...])`",
        "TextVectorization": (
            'left to tokenizers: `AutoTokenizer.from_pretrained("bert-base-uncased")`, in the `collate_fn`'
        ),
    },
    "ops": {
        "associative_scan": "left to torch: `torch.associative_scan`, or a loop in a layer's call",
        "conv_transpose": "left to torch: `torch.nn.functional.conv_transpose2d`, or `layers.Conv2DTranspose`",
        "correlate": "left to torch: `torch.nn.functional.conv1d`",
        "ctc_decode": "left to torchaudio: `torchaudio.models.decoder.ctc_decoder`",
        "rearrange": "left to einops: `einops.rearrange`, which takes symbolic tensors",
    },
    "ops.image": {
        "elastic_transform": "left to torchvision: `torchvision.transforms.v2.ElasticTransform`",
        "extract_patches_3d": "left to torch: `x.unfold(...)` along each axis",
        "perspective_transform": "left to torchvision: `torchvision.transforms.v2.functional.perspective`",
        "scale_and_translate": "left to torch: `torch.nn.functional.affine_grid` and `grid_sample`",
        "ssim": "left to torchmetrics: `torchmetrics.functional.image.structural_similarity_index_measure`",
    },
    "optimizers": {
        "MultiOptimizer OptimizerMap": "left to train_step: an optimizer for each part, applied to its weights",
    },
    "optimizers.legacy": {"Adagrad Adam Ftrl Optimizer RMSprop SGD": _LEGACY},
    "preprocessing": {
        "image_dataset_from_directory": _FOLDER.format("torchvision.datasets.ImageFolder(folder, transform)"),
        "text_dataset_from_directory": _TEXTS,
    },
    "saving": {
        "KerasFileEditor": "left to Python: `zipfile.ZipFile(path)` and `h5py.File`",
        "load_weights save_weights": 'left to Model: `model.load_weights(path)`, `model.save_weights("x.weights.h5")`',
    },
    "utils": {
        "Config": "left to Python: `types.SimpleNamespace(**settings)`, or a dataclass",
        "FeatureSpace": _ENCODER.format('make_column_transformer((OneHotEncoder(), ["colour"]), ...)'),
        "Progbar": "left to tqdm: `for batch in tqdm.tqdm(loader):`",
        "audio_dataset_from_directory": _FOLDER.format("torchaudio.datasets.YESNO(folder)"),
        "image_dataset_from_directory": _FOLDER.format("torchvision.datasets.ImageFolder(folder, transform)"),
        "text_dataset_from_directory": _TEXTS,
    },
}

# Namespaces of which no name is here.
ABSENT_NAMESPACES: dict[str, str] = {
    "applications.convnext": _FROM_TIMM.format("convnext_tiny"),
    "applications.densenet": _FROM_TORCHVISION.format("densenet121"),
    "applications.efficientnet_v2": _FROM_TORCHVISION.format("efficientnet_v2_s"),
    "applications.inception_resnet_v2": _FROM_TIMM.format("inception_resnet_v2"),
    "applications.mobilenet": _FROM_TIMM.format("mobilenetv1_100"),
    "applications.mobilenet_v3": _FROM_TORCHVISION.format("mobilenet_v3_small"),
    "applications.nasnet": _FROM_TIMM.format("nasnetalarge"),
    "distillation": "left to train_step: the teacher's outputs in `compute_loss`, as in `examples/custom_training.py`",
    "distribution": "left to torch: `torchrun script.py`",
    "dtype_policies": _PRECISION,
    "export": 'left to Model: `model.export(path, format="onnx")`',
    "legacy.saving": "left to saving: `saving.deserialize_keras_object(config)`",
    "quantizers": _TORCHAO,
    "tree": "left to optree: `optree.tree_map(f, structure)`",
    "utils.bounding_boxes": 'left to torchvision: `torchvision.ops.box_convert(boxes, "xyxy", "xywh")`, `box_iou` ...',
    "utils.legacy": "left to saving: `saving.deserialize_keras_object(config)`",
    "visualization": "left to torchvision: `torchvision.utils.draw_bounding_boxes(image, boxes)`, `make_grid` ...",
    "wrappers": "left to skorch: `skorch.NeuralNetClassifier(model, criterion=torch.nn.CrossEntropyLoss)`",
}


def instead_of(namespace: str, name: str) -> str | None:
    """What is said of a name: `("layers", "StringLookup")`; None of one that Keras has not, or that is here."""
    path = f"{namespace}.{name}".lstrip(".")
    spaces = [space for space in ABSENT_NAMESPACES if f"{space}.".startswith(f"{path}.") or namespace == space]
    if spaces:
        return ABSENT_NAMESPACES[spaces[0]]
    told = ABSENT.get(namespace, {})
    if namespace.startswith("ops."):
        told = {**ABSENT["ops"], **told}  # Keras has its operations in several namespaces
    found = [text for names, text in told.items() if name in names.split()]
    return found[0] if found else None
