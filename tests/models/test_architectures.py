"""Public architectures, built at toy size from their configurations: nearly every element of a matrix is analyzed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww import analyze

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore")]  # the libraries' own

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = {**SMALL, "vocab_size": 256}
GROUPED = {**TEXT, "num_key_value_heads": 2}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_intermediate_size": 48}
SEEN = {"image_size": 32, "patch_size": 8}


def library(name: str) -> Any:
    """A library that has no types, or is not there when types are checked."""
    return importlib.import_module(name)


def of(name: str, **settings: Any) -> Callable[[], nn.Module]:
    """A model of transformers, from the name of its family."""

    def build() -> nn.Module:
        transformers = library("transformers")
        config = getattr(transformers, f"{name}Config")(**settings)
        model: nn.Module = getattr(transformers, f"{name}Model")(config)
        return model

    return build


def lora() -> nn.Module:
    peft = library("peft")
    config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model: nn.Module = peft.get_peft_model(of("Llama", **GROUPED)(), config)
    return model


def unet() -> nn.Module:
    diffusers = library("diffusers")
    sizes = {"block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 16, "cross_attention_dim": 32}
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    model: nn.Module = diffusers.UNet2DConditionModel(**sizes, **blocks, attention_head_dim=8)
    return model


def graph() -> nn.Module:
    layers = library("torch_geometric.nn")
    return nn.ModuleList(
        [layers.GCNConv(32, 64), layers.GATConv(64, 16, heads=4), layers.RGCNConv(64, 64, num_relations=6)]
    )


def recurrent() -> nn.Module:
    return nn.ModuleList([nn.LSTM(32, 64, 2), nn.GRU(64, 48, bidirectional=True), nn.RNN(96, 32)])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "BERT": of("Bert", **TEXT),
    "DistilBERT": of("DistilBert", dim=64, n_layers=2, n_heads=4, hidden_dim=128, vocab_size=256),
    "ALBERT": of("Albert", **TEXT, embedding_size=32),
    "GPT-2": of("GPT2", n_embd=64, n_layer=2, n_head=4, vocab_size=256),
    "OPT": of(
        "OPT", **{k: v for k, v in TEXT.items() if k != "intermediate_size"}, ffn_dim=128, word_embed_proj_dim=64
    ),
    "BLOOM": of("Bloom", hidden_size=64, n_layer=2, n_head=4, vocab_size=256),
    "Falcon": of("Falcon", **TEXT),
    "Llama": of("Llama", **GROUPED),
    "Gemma 2": of("Gemma2", **GROUPED, head_dim=16),
    "Phi-3": of("Phi3", **GROUPED, pad_token_id=0),
    "Mixtral": of("Mixtral", **GROUPED, num_local_experts=4),
    "Qwen2-MoE": of("Qwen2Moe", **GROUPED, num_experts=4, moe_intermediate_size=48, shared_expert_intermediate_size=64),
    "DeepSeek-V3": of(
        "DeepseekV3",
        **{**TEXT, "num_key_value_heads": 4},
        **{"n_routed_experts": 8, "moe_intermediate_size": 48, "q_lora_rank": 32, "kv_lora_rank": 16, "n_group": 2},
        **{"topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "qk_rope_head_dim": 8},
        **{"qk_nope_head_dim": 16, "v_head_dim": 16},
    ),
    "T5": of("T5", d_model=64, d_ff=128, d_kv=16, num_layers=2, num_heads=4, vocab_size=256),
    "Mamba": of(
        "Mamba", hidden_size=64, num_hidden_layers=2, vocab_size=256, state_size=16, time_step_rank=8, conv_kernel=8
    ),
    "Whisper": of(
        "Whisper",
        **{"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 256},
        **{"decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "pad_token_id": 0},
        **{"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    ),
    "Wav2Vec2": of("Wav2Vec2", **SMALL, conv_dim=(32, 32), conv_stride=(5, 2), conv_kernel=(10, 3), vocab_size=32),
    "ViT": of("ViT", **SMALL, **SEEN),
    "Swin": of("Swin", image_size=32, patch_size=4, embed_dim=32, depths=[1, 1], num_heads=[2, 4], window_size=4),
    "ResNet": of("ResNet", embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1]),
    "ConvNeXt": of("ConvNext", hidden_sizes=[32, 64, 64, 64], depths=[1, 1, 1, 1]),
    "CLIP": of(
        "CLIP",
        text_config={**TEXT, "projection_dim": 32, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0},
        vision_config={**SMALL, **SEEN},
        projection_dim=32,
    ),
    "torch's Transformer": lambda: nn.Transformer(64, 4, 2, 2, 128),
    "torch's recurrent layers": recurrent,
    "LoRA on Llama": lora,
    "diffusers' U-Net": unet,
    "graph convolutions": graph,
}

RIGHT = {"too_small", "tied", "one_axis"}
"""The reasons that are right for a matrix that is not analyzed."""


@pytest.mark.parametrize("name", MODELS)
def test_nearly_every_element_of_a_matrix_is_analyzed(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    wanted = sum(p.numel() for p in {id(p): p for p in model.parameters() if p.ndim >= 2}.values())
    report = analyze(model, shuffle="off")
    found = sum(layer.N * layer.M * layer.slices for layer in report.layers)
    left = {skip.name: skip.reason for skip in report.skipped if skip.reason != "one_axis"}
    assert found <= wanted
    assert found >= 0.995 * wanted, left
    assert {skip.reason for skip in report.skipped} <= RIGHT


def test_there_are_25_architectures_or_more() -> None:
    assert len(MODELS) >= 25
