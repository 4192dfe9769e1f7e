"""Checkpoints under the names that the authors of an architecture gave them, made of small models of timm and mapped back."""

import re

import pytest
import timm
import torch

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 5}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 8, 12, 16), "num_classes": 5}


def made(name, **arguments):
    torch.manual_seed(2)
    model = timm.create_model(name, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def renamed(state, *rules):
    """Put names through regular expressions, in their order."""
    for old, new in rules:
        state = {re.sub(old, new, name): tensor for name, tensor in state.items()}
    return dict(state)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def headless(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def dino(state):
    head = {"head.mlp.0.weight": torch.randn(8, 24), "head.last_layer.weight_g": torch.ones(9, 1)}
    student = prefixed(headless(state), "module.backbone.") | prefixed(head, "module.head.")
    student = {name: torch.randn(tensor.shape) for name, tensor in student.items()}
    return {"student": student, "teacher": prefixed(headless(state), "backbone.") | head, "epoch": 3, "args": None}


def mae(state):
    decoder = {
        "mask_token": torch.zeros(1, 1, 16),
        "decoder_pos_embed": torch.zeros(1, 17, 16),
        "decoder_embed.weight": torch.zeros(16, 24),
    }
    decoder |= {"decoder_blocks.0.attn.qkv.weight": torch.zeros(48, 16), "decoder_pred.weight": torch.zeros(192, 16)}
    return {"model": headless(state) | decoder}


def moco_v3(state):
    momentum = {name: torch.randn(tensor.shape) for name, tensor in headless(state).items()}
    base = prefixed(headless(state), "module.base_encoder.") | prefixed(momentum, "module.momentum_encoder.")
    return {
        "arch": "vit_small",
        "state_dict": base
        | {"module.base_encoder.head.0.weight": torch.ones(9, 24), "module.predictor.0.weight": torch.ones(9, 9)},
    }


def swin(state):
    def earlier(match):
        return f"layers.{int(match[1]) - 1}.downsample"

    found = {
        re.sub(r"layers\.(\d+)\.downsample", earlier, name).replace("head.fc.", "head."): tensor for name, tensor in state.items()
    }
    buffers = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64)}
    return {"model": found | buffers | {"layers.0.blocks.0.attn_mask": torch.zeros(4, 16, 16)}}


def convnext(state):
    rules = [(r"^stem\.", "downsample_layers.0."), (r"stages\.(\d)\.downsample\.", r"downsample_layers.\1."), (r"\.blocks\.", ".")]
    rules += [("conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"), (r"head\.norm", "norm"), (r"head\.fc", "head")]
    return {"model": renamed(state, *rules)}


def convnext_v2(state):
    found = convnext(state)["model"]
    found = renamed(found, (r"mlp\.grn\.bias", "grn.beta"), (r"mlp\.grn\.weight", "grn.gamma"))
    return {"model": {name: tensor.view(1, 1, 1, -1) if "grn" in name else tensor for name, tensor in found.items()}}


def beit(state):
    index = {"blocks.0.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.int64)}
    return {"module": state | index}


CLIP = [(r"^patch_embed\.proj", "conv1"), (r"^pos_embed", "positional_embedding"), (r"^cls_token", "class_embedding")]
CLIP += [(r"^norm_pre", "ln_pre"), (r"^norm\.", "ln_post."), (r"^blocks\.", "transformer.resblocks."), (r"\.norm(\d)", r".ln_\1")]
CLIP += [
    (r"attn\.qkv\.", "attn.in_proj_"),
    (r"attn\.proj", "attn.out_proj"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
]


def clip(state):
    found = renamed(headless(state), *CLIP)
    found["positional_embedding"], found["class_embedding"] = found["positional_embedding"][0], found["class_embedding"][0, 0]
    found["proj"] = state["head.weight"].T.contiguous()
    text = {"token_embedding.weight": torch.zeros(9, 8), "logit_scale": torch.tensor(1.0)}
    return {"state_dict": prefixed(found, "visual.") | text}


def tower(state):
    text = {"text.token_embedding.weight": torch.zeros(9, 8), "logit_scale": torch.tensor(1.0)}
    return {"state_dict": prefixed(prefixed(headless(state), "visual.trunk.") | text, "module.")}


def dinov2(state):
    return headless(state) | {"mask_token": torch.zeros(1, 24)}


def dinov2_registers(state):
    found = headless(state)
    found["register_tokens"] = found.pop("reg_token")
    found["pos_embed"] = torch.cat((torch.full((1, 1, 24), 0.25), found["pos_embed"]), 1)
    found["cls_token"] = found["cls_token"] - 0.25
    return found | {"mask_token": torch.zeros(1, 24)}


def eva02(state):
    rules = [(r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"), (r"mlp\.fc2", "mlp.w3"), (r"mlp\.norm", "mlp.ffn_ln")]
    return {"module": renamed(state, *rules) | {"rope.freqs_cos": torch.zeros(16, 12), "rope.freqs_sin": torch.zeros(16, 12)}}


def deit_3(state):
    return {"model": renamed(state, (r"ls(\d)\.gamma", r"gamma_\1"))}


FAMILIES = {
    "DINO": ("vit_small_patch16_224", VIT, dino),
    "MAE": ("vit_base_patch16_224", VIT, mae),
    "MoCo v3": ("vit_small_patch16_224", VIT, moco_v3),
    "DeiT": ("deit_tiny_patch16_224", VIT, lambda state: {"model": state}),
    "DeiT distilled": ("deit_tiny_distilled_patch16_224", VIT, lambda state: {"model": state}),
    "DeiT III": ("deit3_small_patch16_224", VIT, deit_3),
    "Swin": ("swin_tiny_patch4_window7_224", SWIN, swin),
    "ConvNeXt": ("convnext_tiny", CONVNEXT, convnext),
    "ConvNeXt V2": ("convnextv2_tiny", CONVNEXT, convnext_v2),
    "BEiT": ("beit_base_patch16_224", VIT, beit),
    "CLIP": ("vit_base_patch16_clip_224", VIT, clip),
    "OpenCLIP with timm": ("vit_base_patch16_clip_224", VIT, tower),
    "SigLIP": ("vit_base_patch16_siglip_224", VIT | {"num_classes": 0}, tower),
    "EVA-02": ("eva02_base_patch14_224", VIT, eva02),
    "DINOv2": ("vit_small_patch14_dinov2", VIT, dinov2),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", VIT, dinov2_registers),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_timm(tmp_path, family):
    name, arguments, to_authors = FAMILIES[family]
    model = made(name, **arguments)
    torch.save(to_authors(model.state_dict()), tmp_path / "authors.pth")
    without = {key: value for key, value in arguments.items() if key != "num_classes"}
    encoder = load_encoder(ModelRequest(tmp_path / "authors.pth", arch=f"timm:{name}", arch_args={**without, "num_classes": 5}))
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features(image), pre_logits=True)
        found, _ = encoder.tap(encoder.module, image)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5), [warning.message for warning in encoder.warnings]


def test_positions_of_another_grid_are_resampled_and_told(tmp_path):
    model = made("vit_small_patch16_224", **VIT | {"img_size": 48})
    torch.save({"model": model.state_dict()}, tmp_path / "m.pth")
    encoder = load_encoder(ModelRequest(tmp_path / "m.pth", arch="timm:vit_small_patch16_224", arch_args=VIT))
    (told,) = [warning for warning in encoder.warnings if "resampled" in warning.message]
    assert told.first == ("pos_embed from 1x37x24 to 1x17x24",)
