"""Precision and backend are properties of a model: they go wherever it goes."""

import pickle
from collections.abc import Callable
from copy import copy, deepcopy

import pytest
import torch
from torch import Tensor

from iart.errors import DeviceError
from iart.model import IART
from iart.upscaling.clip import upscale
from iart.weights import load_model
from tests.model.formula import with_formula_weights
from tests.model.test_pieces import SMALL

CLIP = torch.rand(1, 2, 3, 9, 13, generator=torch.Generator().manual_seed(0))


def through_pickle(model: IART) -> IART:
    return pickle.loads(pickle.dumps(model))


@pytest.fixture
def half() -> IART:
    model = with_formula_weights(IART(SMALL))
    model.precision, model.backend = "bfloat16", "torch"
    return model


@torch.inference_mode()
def enlarged(model: IART) -> Tensor:
    return model(CLIP)


@pytest.mark.parametrize("duplicate", [copy, deepcopy, through_pickle, IART.cpu, IART.float])
def test_a_copy_computes_as_the_model_does(half: IART, duplicate: Callable[[IART], IART]):
    other = duplicate(half)
    assert (other.precision, other.backend) == ("bfloat16", "torch")
    assert enlarged(other).equal(enlarged(half))
    exact = with_formula_weights(IART(SMALL))
    assert not enlarged(other).equal(enlarged(exact))
    other.precision = "float32"
    other.backend = "native"
    torch.testing.assert_close(enlarged(other), enlarged(exact))


@pytest.mark.parametrize("duplicate", [deepcopy, through_pickle])
def test_a_copy_has_weights_of_its_own(half: IART, duplicate: Callable[[IART], IART]):
    other, before = duplicate(half), enlarged(half)
    with torch.no_grad():
        other.get_parameter("head.last.bias").add_(1)
    torch.testing.assert_close(enlarged(other), before + 1, rtol=0, atol=2**-6)
    assert enlarged(half).equal(before)


def test_a_copy_in_another_precision_leaves_the_model_alone(half: IART):
    before = enlarged(half)
    other = copy(half)
    other.precision = "float32"
    assert not enlarged(other).equal(before)
    assert half.precision == "bfloat16"
    assert enlarged(half).equal(before)


def test_weights_do_not_hold_them(half: IART):
    plain = IART(SMALL)
    assert half.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(half.state_dict())
    assert (plain.precision, plain.backend) == ("float32", "native")


def test_float32_leaves_the_callers_autocast_as_it_is(half: IART):
    model = with_formula_weights(IART(SMALL))
    model.backend = "torch"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = model(CLIP)
    assert out.equal(enlarged(half))


def test_load_model_sets_them():
    model = load_model("light", "cpu")
    assert (model.precision, model.backend) == ("float32", "native")
    half = load_model("light", "cpu", "bfloat16", backend="torch")
    assert (half.precision, half.backend) == ("bfloat16", "torch")
    clip = CLIP[0]
    assert not upscale(clip, half).equal(upscale(clip, model))
    assert upscale(clip, deepcopy(half)).equal(upscale(clip, half))


def test_auto_is_float32_in_cpp_on_the_cpu(half: IART):
    half.precision = half.backend = "auto"
    assert (half.precision, half.backend, half.widens) == ("float32", "native", False)


def test_a_precision_that_the_device_lacks_is_refused(half: IART):
    with pytest.raises(DeviceError, match="float16 needs a GPU"):
        half.precision = "float16"
    with pytest.raises(DeviceError, match="unknown precision 'half'"):
        half.precision = "half"
    assert half.precision == "bfloat16"
