"""Ways of decomposing that each kind of layer is tried in: options of `decompose`, to be compared with the dense matrix."""

from __future__ import annotations

from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact"},
    "adaptive": {"method": "adaptive", "tolerance": 1e-10},
    "matrix_free": {"method": "matrix_free", "rank": 2, "tolerance": 1e-9},
    "budget": {"method": "exact", "memory_budget": "1MiB"},
    "float64": {"method": "exact", "precision": "float64"},
    "locality": {"method": "exact", "locality": True},
}
