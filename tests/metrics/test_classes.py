"""What every metric class promises, whichever it is: one number whatever the batches, states no cast may touch."""

from __future__ import annotations

import inspect
import pickle

import pytest
import torch
from metric_cases import COUNT, MAKERS, computed, exported, inputs, same, taken_by
from torchmetrics import MetricCollection

EVERYTHING = inputs()
EACH = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def whole(make, times=1):
    return computed(make(), EVERYTHING, [range(COUNT)] * times)


def test_all_classes_are_covered():
    assert sorted(exported()) == [
        "GTKnownLoc", "MaxBoxAcc", "MaxBoxAccV2", "PIoU", "PxAP", "TopKAccuracy", "TopKLoc",
    ]  # fmt: skip
    assert all(any(name.startswith(f"{cls}(") for name in MAKERS) for cls in exported())


@pytest.mark.parametrize("cls", exported().values(), ids=exported())
def test_the_class_says_what_it_is(cls):
    assert cls.higher_is_better is True
    assert cls.full_state_update is False
    assert cls.is_differentiable is False
    assert (cls.plot_lower_bound, cls.plot_upper_bound) == (0.0, 1.0)
    assert ">>>" in inspect.getdoc(cls)


@EACH
def test_the_result_holds_its_number(make):
    value = whole(make)["value"]
    assert type(value) is float
    assert 0 < value < 1  # else the tests below would compare nothing


@EACH
@pytest.mark.parametrize(
    "batches",
    [
        [[i] for i in range(COUNT)],
        [range(5), range(5, 6), range(6, COUNT)],
        [[], range(7), [], range(7, COUNT)],
        [[11, 3, 8], [0, 1, 2, 4], [5, 6, 7, 9, 10]],
    ],
    ids=["one by one", "uneven", "with empty batches", "in another order"],
)
def test_batches_cannot_change_the_result(make, batches):
    assert same(computed(make(), EVERYTHING, batches), whole(make))


@EACH
def test_forward_returns_the_batch_and_accumulates(make):
    metric = make()
    for part in (range(7), range(7, COUNT)):
        assert same(metric(**taken_by(metric, EVERYTHING, part)), computed(make(), EVERYTHING, [part]))
    assert same(metric.compute(), whole(make))


@EACH
def test_reset_forgets_and_a_clone_goes_its_own_way(make):
    metric = make()
    computed(metric, EVERYTHING, [range(4)])
    clone = metric.clone()
    metric.reset()
    assert same(computed(metric, EVERYTHING, [range(COUNT)]), whole(make))
    assert same(computed(clone, EVERYTHING, [range(4, COUNT)]), whole(make))


@EACH
def test_state_dict_and_pickle_carry_on(make):
    metric, other = make(), make()
    computed(metric, EVERYTHING, [range(4)])
    metric.persistent(True)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    for one in (other, pickle.loads(pickle.dumps(metric))):
        assert same(computed(one, EVERYTHING, [range(4, COUNT)]), whole(make))


@EACH
@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(),
        lambda m: m.float(),
        lambda m: m.double(),
        lambda m: m.set_dtype(torch.float16),
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu", torch.bfloat16),
        lambda m: torch.nn.ModuleList([m]).half()[0],
        lambda m: torch.nn.ModuleList([m]).bfloat16()[0],
    ],
    ids=["half", "float", "double", "set_dtype", "to half", "to bfloat16", "in a half module", "in a bfloat16 module"],
)
def test_no_cast_touches_the_counts(make, cast):
    metric = make()
    computed(metric, EVERYTHING, [range(4)])
    metric = cast(metric)
    assert same(computed(metric, EVERYTHING, [range(4, COUNT)]), whole(make))
    counts = {name: getattr(metric, name) for name in metric._defaults if name != "settings"}
    assert counts
    assert all(count.dtype == torch.int64 for count in counts.values())


def test_a_collection_of_all_gives_what_each_gives_alone():
    # the first batch is one image with a perfect map and the right class, on which all metrics of a kind agree
    hit = torch.zeros_like(EVERYTHING["maps_BHW"][:1])
    hit[0, 2:5, 2:6] = 1
    first = {
        "maps_BHW": hit,
        "boxes": [torch.tensor([[2, 2, 6, 5]])],
        "logits_BK": torch.eye(8)[:1],
        "labels_B": torch.tensor([0]),
        "masks_BHW": hit.to(torch.uint8),
    }
    together = MetricCollection({str(index): make() for index, make in enumerate(MAKERS.values())})
    alone = [make() for make in MAKERS.values()]
    for batch in (first, EVERYTHING):
        together.update(**batch)
        for metric in alone:
            metric.update(**taken_by(metric, batch, range(len(batch["boxes"]))))
    for index, (name, metric) in enumerate(zip(MAKERS, alone, strict=True)):
        assert same(together[str(index)].compute(), metric.compute()), name


@EACH
def test_nothing_seen_is_an_error_not_a_number(make):
    with pytest.warns(UserWarning, match="before"), pytest.raises((RuntimeError, ValueError), match="at least one"):
        make().compute()
