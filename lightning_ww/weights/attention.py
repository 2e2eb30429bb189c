"""The sizes that attention's logits can reach, head by head, from the weights of queries and keys alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ww.weights import effective
from lightning_ww.weights.slices import fused_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.layers import Layer

    Array = NDArray[np.float64]

KEY_OF = {
    **{"q_proj": "k_proj", "query": "key", "q": "k", "to_q": "to_k", "q_lin": "k_lin", "wq": "wk"},
    **{"query_proj": "key_proj", "q_proj_weight": "k_proj_weight"},
}
"""The last part of the name of a layer with keys, by that of the layer with the queries beside it."""

COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")
"""The names by which attention modules, or their ``config``, hold the number of heads."""

LEVELS = 3
"""The number of modules, from the layer's own upward, in which that number is looked for."""


@dataclass(frozen=True)
class Heads:
    """The keys that belong to a layer of queries."""

    key: Tensor  # (key heads · size of a head, width)
    num_heads: int  # of the queries; several may share a head of keys
    is_transposed: bool = False  # whether the layer of queries holds its heads along the columns

    @property
    def fingerprint(self) -> bytes:
        """A hash of the keys."""
        content = self.key.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        return hashlib.sha1(content, usedforsecurity=False).digest()

    def scales(self, query: Array) -> Array:
        """The largest singular value of ``W_qᵀ W_k`` of each head, shape ``(heads,)``.

        A logit is at most this times the norms of the two inputs, over the square root of the head's size. It is found from
        the Gram matrices of the head's rows, ``σ² = λ_max(G_q^½ G_k G_q^½)``, never from a matrix as wide as the model.

        Args:
            query: The weight of the queries, shape ``(heads · size of a head, width)``, transposed if `is_transposed`.
        """
        rows = (query.T if self.is_transposed else query).astype(np.float64)
        size = rows.shape[0] // self.num_heads
        q = rows.reshape(self.num_heads, size, -1)
        k = self.key.detach().to(device="cpu", dtype=torch.float64).numpy().reshape(-1, size, rows.shape[1])
        k = np.repeat(k, self.num_heads // len(k), axis=0)
        values, vectors = np.linalg.eigh(q @ q.transpose(0, 2, 1))
        roots = vectors * np.sqrt(values.clip(min=0))[:, None, :]
        inner = roots.transpose(0, 2, 1) @ (k @ k.transpose(0, 2, 1)) @ roots
        return np.asarray(np.sqrt(np.linalg.eigvalsh(inner)[:, -1].clip(min=0)))


def attention_heads(model: nn.Module, layers: Sequence[Layer], *, copy: bool = False) -> dict[str, Heads]:
    """The keys of each layer of queries whose attention module is recognized, by the name of the layer.

    Args:
        model: The model.
        layers: Its layers.
        copy: Whether to copy the keys, so that later steps of training do not change them. Default: ``False``.
    """
    by_name = {layer.name: layer for layer in layers}
    found: dict[str, Heads] = {}
    for name, layer in by_name.items():
        prefix, _, last = name.rpartition(".")
        other = KEY_OF.get(last, "")
        partner = by_name.get(f"{prefix}.{other}" if prefix else other)
        if not other or partner is None or layer.is_sharded or partner.is_sharded:
            continue
        with suppress(Exception):  # what cannot be read has no value, and a reason where it is measured
            if (heads := _heads(model, layer, partner)) is not None:
                found[name] = replace(heads, key=heads.key.clone()) if copy else heads
    return found


def _heads(model: nn.Module, query: Layer, key: Layer) -> Heads | None:
    q, k = query.read(), key.read()
    if len(q) != 1 or len(k) != 1:
        return None
    whole = effective.weight(query.module, query.attribute)
    is_transposed = query.is_fused and whole is not None and fused_side(whole, query.block[1]) == 1
    rows, keys = (q[0].T, k[0].T) if is_transposed else (q[0], k[0])
    num_heads = _count(model, query.owner, rows.shape[0])
    if num_heads is None or rows.shape[0] % num_heads or rows.shape[1] != keys.shape[1]:
        return None
    size = rows.shape[0] // num_heads
    if keys.shape[0] % size or num_heads % (keys.shape[0] // size):
        return None
    return Heads(keys.detach().cpu(), num_heads, is_transposed)


def _count(model: nn.Module, owner: str, rows: int) -> int | None:
    """The number of heads, from the attention module or one of those around it."""
    parts = owner.split(".") if owner else []
    for level in range(LEVELS + 1):
        names = parts[: len(parts) - level] if level <= len(parts) else []
        with suppress(AttributeError):
            module: Any = model.get_submodule(".".join(names))
            for holder in (module, getattr(module, "config", None)):
                for name in COUNTS:
                    if (
                        isinstance(count := getattr(holder, name, None), int)
                        and not isinstance(count, bool)
                        and count > 0
                    ):
                        return count
            if isinstance(size := getattr(module, "head_dim", None), int) and size > 0 and rows % size == 0:
                return rows // size
    return None


def logit_scale(heads: Mapping[str, Heads] | None, layer: str, query: Array) -> float | None:
    """The largest of a layer's heads, or ``None`` if its attention module was not recognized."""
    own = (heads or {}).get(layer)
    return None if own is None else float(own.scales(query).max())
