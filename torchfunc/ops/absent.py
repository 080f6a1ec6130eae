"""The operations of Keras that are not here, and what to write instead."""

from __future__ import annotations

__all__ = ["ABSENT"]

ABSENT = {
    "associative_scan": "torch.associative_scan, or a loop in a layer's call()",
    "conv_transpose": "layers.Conv2DTranspose, or torch.nn.functional.conv_transpose2d",
    "correlate": "torch.nn.functional.conv1d",
    "ctc_decode": "torchaudio.models.decoder.ctc_decoder",
    "rearrange": "einops.rearrange, which takes symbolic tensors",
    "image.elastic_transform": "torchvision.transforms.v2.ElasticTransform",
    "image.extract_patches_3d": "x.unfold(...) along each axis",
    "image.perspective_transform": "torchvision.transforms.v2.functional.perspective",
    "image.scale_and_translate": "torch.nn.functional.affine_grid and grid_sample",
    "image.ssim": "torchmetrics.functional.image.structural_similarity_index_measure",
}
