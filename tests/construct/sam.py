"""Tiny random models of SAM 2 and SAM 3 for videos, saved as their checkpoints are. Random: they find something, not what is asked."""

import json
from pathlib import Path

import torch
from transformers import (
    CLIPTokenizer,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
    Sam3ImageProcessor,
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3VideoProcessor,
)

SMALL = {"num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "hidden_size": 128}


def tracker_sizes(side: int, patch: int) -> dict:
    """hidden 128: the memory's 64 are fixed, and object pointers are split into parts of that size."""
    return {
        "image_size": side,
        "prompt_encoder_config": {"hidden_size": 128, "image_size": side, "patch_size": patch},
        "mask_decoder_config": {
            "hidden_size": 128,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        "memory_attention_hidden_size": 128,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 64,
        "memory_attention_rope_feat_sizes": [side // patch] * 2,
        "memory_encoder_hidden_size": 128,
        "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128,
        "memory_fuser_intermediate_dim": 64,
    }


def build_sam2(folder: Path, side: int = 128) -> Path:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [side, side],
        "patch_kernel_size": [7, 7],
        "patch_stride": [4, 4],
        "patch_padding": [3, 3],
        "query_stride": [2, 2],
        "window_positional_embedding_background_size": [7, 7],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[side // scale] * 2 for scale in (4, 8, 16)],
        "fpn_hidden_size": 128,
        "fpn_top_down_levels": [2, 3],
    }
    torch.manual_seed(0)
    model = Sam2VideoModel(Sam2VideoConfig(vision_config=vision, **tracker_sizes(side, 16)))
    size = {"height": side, "width": side}
    images = Sam2ImageProcessor(size=size, mask_size={"height": side // 4, "width": side // 4})
    processor = Sam2VideoProcessor(images, Sam2VideoVideoProcessor(size=size), target_size=side)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_sam3(folder: Path, side: int = 112, queries: int = 1) -> Path:
    """Its detections always pass; what they are called changes nothing of note."""
    grid = side // 14
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": side,
    }
    vision = {
        "model_type": "sam3_vision_model",
        "fpn_hidden_size": 128,
        "backbone_config": backbone,
        "backbone_feature_sizes": [[grid * scale] * 2 for scale in (4, 2, 1)],
    }
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "projection_dim": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": text,
        "geometry_encoder_config": SMALL,
        "detr_encoder_config": SMALL,
        "detr_decoder_config": {**SMALL, "num_queries": queries},
        "mask_decoder_config": {"hidden_size": 128, "num_attention_heads": 2},
    }
    tracker = {"model_type": "sam3_tracker_video", "vision_config": vision, **tracker_sizes(side, 14)}
    torch.manual_seed(0)
    config = Sam3VideoConfig(
        detector_config=detector,
        tracker_config=tracker,
        image_size=side,
        low_res_mask_size=grid * 4,
        score_threshold_detection=0.0,
        new_det_thresh=0.0,
        assoc_iou_thresh=-1.0,
        trk_assoc_iou_thresh=-1.0,
        hotstart_delay=0,
        fill_hole_area=0,
    )
    folder.mkdir()
    letters = [letter for each in "abcdefghijklmnopqrstuvwxyz0123456789-'" for letter in (each, f"{each}</w>")]
    names = ["<|startoftext|>", "<|endoftext|>", *letters]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    size = {"height": side, "width": side}
    processor = Sam3VideoProcessor(
        Sam3ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size), tokenizer, target_size=side
    )
    Sam3VideoModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
