"""What the random models that see say about their image processor."""

from __future__ import annotations

PATCH_PIXELS, MERGE_PATCHES, FRAMES_PER_PATCH = 14, 2, 2
TOKEN_PIXELS = (PATCH_PIXELS * MERGE_PATCHES) ** 2
MIN_IMAGE_TOKENS, MAX_IMAGE_TOKENS = 4, 64  # 56x56 to 224x224 pixels


def qwen2_image_config() -> dict:
    """Of Qwen2.5-VL; that of Qwen2-VL names another processor."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": MIN_IMAGE_TOKENS * TOKEN_PIXELS,
        "max_pixels": MAX_IMAGE_TOKENS * TOKEN_PIXELS,
        "patch_size": PATCH_PIXELS,
        "temporal_patch_size": FRAMES_PER_PATCH,
        "merge_size": MERGE_PATCHES,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }


def qwen3_image_config() -> dict:
    """Of Qwen3-VL: patches of 16 pixels."""
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": MIN_IMAGE_TOKENS * 32**2, "longest_edge": MAX_IMAGE_TOKENS * 32**2},
        "patch_size": 16,
        "temporal_patch_size": FRAMES_PER_PATCH,
        "merge_size": MERGE_PATCHES,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
