"""Weights as the workers of a node share them."""

from __future__ import annotations

import torch

from monai_ifim.run.cluster.worker import pack_state, unpack_state


def test_weights_of_every_dense_kind_come_back_as_they_were() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, generator=generator)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
    state = {str(dtype): values.to(dtype) for dtype in kinds}
    state |= {"scalar": torch.tensor(7), "empty": torch.empty(0, 3), "turned": values.t(), "conjugate": values.cfloat().conj()}
    packed = pack_state(state)
    assert packed is not None
    for values, _, _ in packed.values():
        values.flags.writeable = False
    back = unpack_state(packed)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in back.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in state.items()
    }
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert pack_state({"sparse": torch.eye(3).to_sparse()}) is None
    assert pack_state({"extra": {"a": 1}}) is None
