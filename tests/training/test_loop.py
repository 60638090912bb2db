"""The loop: steps, parts of steps, what ends it, and what is kept."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.networks import seeded
from torch import nn

from sktransfer.losses.supervised import squared_error
from sktransfer.training.inference import evaluate, run_in_parts
from sktransfer.training.loop import train
from sktransfer.training.objective import Outputs, ProbeTask, RowwiseObjective
from sktransfer.training.observers import Bystander
from sktransfer.training.settings import Settings


class Vectors:
    """Rows of a matrix."""

    def __init__(self, vectors, groups=1):
        self.vectors, self.groups = vectors, groups

    def __len__(self):
        return len(self.vectors)

    def chunks(self, places):
        parts = [list(range(first, len(places), self.groups)) for first in range(min(self.groups, len(places)))]
        return [(part, self.vectors[[places[i] for i in part]]) for part in parts]

    def batches(self, batches):
        return (self.chunks(places) for places in batches)

    def in_order(self):
        yield list(range(len(self))), self.vectors


def make_data(n=24, groups=1, weights=None):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = X @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.3
    return Data(Vectors(X, groups), y, torch.ones(n, dtype=torch.float64) if weights is None else weights)


class Data(NamedTuple):
    """Rows with targets and weights."""

    rows: Vectors
    targets: torch.Tensor
    weights: torch.Tensor


class Learning(RowwiseObjective):
    """A loss of each row, of the caller's choice."""

    n_outputs = 1

    def __init__(self, data, validation=None, loss=squared_error):
        self.loss_of = loss
        other = [] if validation is None else [validation.targets]
        super().__init__(
            [data.targets], data.weights.numpy(), other, None if validation is None else validation.weights.numpy()
        )

    def row_losses(self, outputs, *targets):
        return self.loss_of(outputs.scores, targets[0])

    def probe_task(self):
        return ProbeTask(self._training[0].numpy(), "numbers", None)


class Scoring(nn.Sequential):
    """Layers, of which the first gives the embedding."""

    def forward(self, X):
        embeddings = self[0](X)
        scores = embeddings
        for layer in list(self)[1:]:
            scores = layer(scores)
        return Outputs(embeddings, scores)


def make_module():
    return seeded(lambda: Scoring(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))


def loss_on(module, data):
    return evaluate(module, data.rows, Learning(data, data), settings())


def settings(**changes):
    return Settings(
        **{"max_epochs": 2, "batch_size": 8, "optimizer": "sgd", "lr_scheduler": "constant", "dtype": torch.float64}
        | changes
    )


def groups_of(module, rate=0.05):
    return [{"params": list(module.parameters()), "lr": rate, "weight_decay": 0.0}]


def run(
    module=None, data=None, rate=0.05, validation=None, observers=(), loss=squared_error, objective=None, **changes
):
    module, data = module or make_module(), data or make_data()
    objective = objective or Learning(data, validation, loss)
    made = train(
        module,
        data.rows,
        objective,
        groups_of(nn.ModuleList([module, objective.modules]), rate),
        settings(**changes),
        validation=None if validation is None else validation.rows,
        observers=observers,
    )
    return module, made


def weights_of(module):
    return torch.cat([one.detach().double().ravel() for one in module.parameters()])


def test_a_step_is_a_step_of_the_weighted_mean_loss():
    weights = torch.linspace(0.5, 3, 24, dtype=torch.float64)
    data = make_data(weights=weights)
    module, made = run(data=data, batch_size=24, max_epochs=1, max_grad_norm=None, warmup_ratio=0.0)
    plain = make_module().double()
    loss = (squared_error(plain(data.rows.vectors).scores, data.targets) * weights).sum() / weights.sum()
    loss.backward()
    wanted = torch.cat([(one - 0.05 * one.grad).detach().ravel() for one in plain.parameters()])
    torch.testing.assert_close(weights_of(module), wanted)
    assert made.history[1]["train_loss"] == pytest.approx(loss.item())
    assert made.history[1]["learning_rate"] == pytest.approx(0.05)


@pytest.mark.parametrize("groups", [2, 5])
def test_a_batch_in_parts_is_the_same_step(groups):
    weights = torch.linspace(0.5, 3, 24, dtype=torch.float64)
    whole, _ = run(data=make_data(weights=weights))
    parts, _ = run(data=make_data(groups=groups, weights=weights))
    torch.testing.assert_close(weights_of(parts), weights_of(whole))


@pytest.mark.parametrize("most", [1, 3, 7])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_that_does_not_fit_into_memory_is_halved_with_the_same_result(most, groups):
    wanted, history = run()
    sizes = []

    def run_out(module, args):
        # In the second layer, when there is half a graph already.
        sizes.append(len(args[0]))
        if len(args[0]) > most:
            raise torch.OutOfMemoryError(f"{len(args[0])} rows")

    module = make_module()
    module[2].register_forward_pre_hook(run_out)
    _, made = run(module, make_data(groups=groups))
    torch.testing.assert_close(weights_of(module), weights_of(wanted))
    assert [row["train_loss"] for row in made.history[1:]] == pytest.approx(
        [row["train_loss"] for row in history.history[1:]]
    )
    # What fits is found once, not in every step.
    assert sum(size > most for size in sizes) <= 3


def test_running_out_in_the_middle_of_a_step_drops_what_was_added():
    wanted, _ = run(data=make_data(groups=2))
    calls = []

    def run_out_once(module, args):
        calls.append(len(args[0]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("the second part of the first step")

    module = make_module()
    module[2].register_forward_pre_hook(run_out_once)
    run(module, make_data(groups=2))
    torch.testing.assert_close(weights_of(module), weights_of(wanted))


class Coupled(Learning):
    """The covariance of a batch's embeddings beside its scores: no sum over rows gives it."""

    def loss(self, outputs, batch, progress):
        return super().loss(outputs, batch, progress) + torch.cov(outputs.embeddings.T).square().sum()


@pytest.mark.parametrize("parts", ["groups", "memory", "both"])
def test_a_loss_that_couples_rows_is_that_of_the_whole_batch_in_parts_too(parts):
    data = make_data(groups=1 if parts == "memory" else 3)
    wanted, history = run(objective=Coupled(data), data=make_data())
    module = make_module()
    if parts != "groups":
        module[2].register_forward_pre_hook(run_out_above(2))
    _, made = run(module, data, objective=Coupled(data))
    torch.testing.assert_close(weights_of(module), weights_of(wanted))
    assert made.history[1]["train_loss"] == pytest.approx(history.history[1]["train_loss"])


def run_out_above(most):
    def run_out(module, args):
        if len(args[0]) > most:
            raise torch.OutOfMemoryError(f"{len(args[0])} rows")

    return run_out


def test_parts_that_are_computed_again_have_the_same_dropout_and_move_no_statistics_twice():
    def make():
        return seeded(lambda: Scoring(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)))

    calls = []

    def run_out_once(module, args):
        calls.append(len(args[0]))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("the first step")

    class Halves(Vectors):
        def chunks(self, places):
            parts = [list(range(start, min(start + 4, len(places)))) for start in range(0, len(places), 4)]
            return [(part, self.vectors[[places[i] for i in part]]) for part in parts]

    data = make_data()
    wanted, _ = run(make(), data._replace(rows=Halves(data.rows.vectors)), batch_size=8)
    module = make()
    module[0].register_forward_pre_hook(run_out_once)
    run(module, data, batch_size=8)
    assert calls[:5] == [8, 4, 4, 4, 4]  # the failed one, two halves, and both again
    torch.testing.assert_close(weights_of(module), weights_of(wanted))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(module[1], name), getattr(wanted[1], name))


class Discriminating(Learning):
    """A module of its own beside the network, and batches of its own choice."""

    def __init__(self, data, validation=None):
        super().__init__(data, validation)
        self.modules["discriminator"] = seeded(lambda: nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5)))
        self.seen, self.progress = [], []

    def batches(self, batch_size, generator):
        return [list(range(start, start + 4)) for start in (0, 12)]  # rows of which others have no part in this loss

    def loss(self, outputs, batch, progress):
        self.seen.append(list(batch))
        self.progress.append(progress)
        assert self.modules.training
        return (
            super().loss(outputs, batch, progress) + self.modules["discriminator"](outputs.embeddings).square().mean()
        )

    def validation_loss(self, outputs):
        assert not self.modules.training
        return super().validation_loss(outputs)


def test_modules_of_the_objective_are_trained_and_kept_with_the_best_epoch():
    data, validation = make_data(), make_data(10)
    objective = Discriminating(data, validation)
    weights = []

    class Noting(Bystander):
        def on_epoch_end(self, epoch, entry):
            weights.append(weights_of(objective.modules))

    before = weights_of(objective.modules)
    _, made = run(data=data, validation=validation, objective=objective, max_epochs=4, rate=3.0, observers=[Noting()])
    best = next(row["epoch"] for row in made.history if row["best"])
    assert best < 4
    torch.testing.assert_close(weights_of(objective.modules), before if best == 0 else weights[best - 1])
    assert not torch.equal(weights[0], before)
    assert next(objective.modules.parameters()).dtype == torch.float64  # moved with the network
    assert objective.seen == [[0, 1, 2, 3], [12, 13, 14, 15]] * 4
    assert objective.progress == pytest.approx(np.arange(8) / 8)


@pytest.mark.parametrize("most", [1, 5, 23])
@pytest.mark.parametrize("groups", [1, 2])
def test_validation_samples_are_halved_too(most, groups):
    data = make_data(groups=groups)
    module = make_module().double()
    wanted = loss_on(module, data)
    sizes = []

    def run_out(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > most:
            raise torch.OutOfMemoryError(f"{len(args[0])} rows")

    module[0].register_forward_pre_hook(run_out)
    assert loss_on(module, data) == pytest.approx(wanted)
    assert sum(size for size in sizes if size <= most) == len(data.rows)
    parts = run_in_parts(module, data.rows, torch.device("cpu"), torch.float64)
    assert sorted(place for places, _ in parts for place in places) == list(range(len(data.rows)))


def test_a_single_row_that_does_not_fit_is_an_error():
    module = make_module()

    def run_out(module, args):
        raise torch.OutOfMemoryError("none fits")

    module[0].register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError, match="none fits"):
        run(module)
    assert all(one.grad is None for one in module.parameters())


def test_other_errors_are_not_mistaken_for_a_lack_of_memory():
    def fail(outputs, targets):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run(loss=fail)


@pytest.mark.parametrize("n", [1, 17])
def test_batch_norm_of_a_single_row_uses_what_it_has_learned(n):
    module = seeded(lambda: Scoring(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    # 17 rows in 4 parts a batch: some hold a single row.
    _, made = run(module, make_data(n, groups=4), batch_size=6)
    assert np.isfinite(made.history[-1]["train_loss"])
    assert torch.isfinite(weights_of(module)).all()
    assert torch.equal(module[1].running_mean, torch.zeros(4)) == (n == 1)


def test_the_best_epoch_of_the_validation_rows_is_kept():
    validation = make_data(10)
    module, made = run(validation=validation, max_epochs=6, rate=3.0, optimizer="sgd")
    losses = [row["valid_loss"] for row in made.history]
    best = int(np.argmin(losses))
    assert [row["best"] for row in made.history] == [epoch == best for epoch in range(len(losses))]
    assert loss_on(module, validation) == pytest.approx(losses[best])


def test_without_validation_rows_the_last_epoch_is_kept():
    module, made = run(max_epochs=3)
    assert [row["best"] for row in made.history] == [False, False, False, True]
    assert made.n_epochs == 3
    assert made.history[0]["train_loss"] is None


def interrupt(epoch):
    class Interrupt(Bystander):
        def on_epoch_begin(self, now):
            self.now = now

        def after_backward(self):
            if self.now == epoch:
                raise KeyboardInterrupt

    return Interrupt()


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupt_ends_training(epoch, validates):
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        run(max_epochs=9, observers=[interrupt(epoch)], validation=make_data(10) if validates else None)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_loss_that_is_no_number_ends_training_with_the_best_weights(validates):
    def loss(outputs, targets):
        made = squared_error(outputs, targets)
        return made * float("nan") if outputs.requires_grad and seen["epoch"] == 3 else made

    seen = {}

    class Epochs(Bystander):
        def on_epoch_begin(self, epoch):
            seen["epoch"] = epoch

    validation = make_data(10) if validates else None
    with pytest.warns(UserWarning, match="infinite in epoch 3.*those of epoch 2. Try a smaller learning_rate"):
        module, made = run(max_epochs=6, loss=loss, observers=[Epochs()], validation=validation)
    assert made.n_epochs == 2
    assert [row["epoch"] for row in made.history if row["best"]] == [2]
    assert torch.isfinite(weights_of(module)).all()


def test_a_validation_loss_that_is_no_number_ends_training_too():
    class Bad(Bystander):
        def on_epoch_begin(self, epoch):
            validation.targets[0] = float("nan") if epoch == 2 else 0.0

    validation = make_data(10)
    with pytest.warns(UserWarning, match="infinite in epoch 2; |infinite in epoch 2, "):
        _, made = run(max_epochs=6, observers=[Bad()], validation=validation)
    assert made.n_epochs == 1


def test_a_start_that_is_no_number_does_not_win():
    class Mend(Bystander):
        def on_epoch_begin(self, epoch):
            validation.targets[0] = 0.0

    validation = make_data(10)
    validation.targets[0] = float("nan")
    _, made = run(max_epochs=3, observers=[Mend()], validation=validation)
    assert [row["epoch"] for row in made.history if row["best"]] == [3]


def test_an_observer_ends_training():
    class Enough(Bystander):
        def on_epoch_end(self, epoch, entry):
            return epoch == 2

    _, made = run(max_epochs=9, observers=[Enough()])
    assert made.n_epochs == 2


def test_gradients_are_cut_to_the_norm():
    module = make_module().double()
    before = weights_of(module)
    run(module, batch_size=24, max_epochs=1, max_grad_norm=1e-3, rate=1.0, warmup_ratio=0.0)
    assert torch.linalg.vector_norm(weights_of(module) - before).item() == pytest.approx(1e-3, rel=1e-3)


def test_each_epoch_sees_every_row_once_in_another_order_that_the_seed_fixes():
    orders = []

    class Noting(Vectors):
        def batches(self, batches):
            orders.append([place for places in batches for place in places])
            return super().batches(batches)

    for seed in (1, 1, 2):
        data = make_data()
        run(data=data._replace(rows=Noting(data.rows.vectors)), seed=seed)
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert orders[0:2] == orders[2:4] != orders[4:6]
    assert orders[0] != orders[1]


def test_generators_stay_and_decide_nothing():
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        module = seeded(lambda: Scoring(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)))
        run(module)
        assert torch.equal(torch.random.get_rng_state(), before)
        made.append(weights_of(module))
    torch.testing.assert_close(made[0], made[1])
