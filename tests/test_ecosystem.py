"""Packages of others take a drawn model as it is, without a wrapper, with the numbers of a module by hand.

What has tests elsewhere: torchmetrics (test_as_metric), ONNX Runtime (test_export), parametrizations and pruning
(test_computed_weights), torch.profiler, compilation, hooks, torch.fx (test_torch_tools), `model.to_torch()` for tools
that go by the classes of modules (test_to_torch), Optuna and what starts several processes (test_jobs).
"""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, callbacks, layers, utils

pytestmark = [
    pytest.mark.slow,  # Most of these packages take a second to import, three of them several.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # (Their own.)
]

RATE, EPOCHS = 0.1, 2
GENERATOR = torch.Generator().manual_seed(0)
ROWS = [torch.rand(192, 8, generator=GENERATOR), torch.randint(0, 3, (192,), generator=GENERATOR)]


def drawn():
    """Every other test may train it."""
    utils.set_random_seed(1)
    inputs = Input((8,), name="row")
    x = nn.LayerNorm(6)(layers.Dense(6, activation="relu", name="hidden")(inputs))
    return Model(inputs, layers.Dense(3, name="head")(x + torch.tanh(x)))


class ByHand(nn.Module):
    """The same with the same weights, written by hand."""

    def __init__(self):
        super().__init__()
        self.hidden, self.layer_norm, self.head = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.load_state_dict(drawn().state_dict())

    def forward(self, row):
        x = self.layer_norm(self.hidden(row).relu())
        return self.head(x + torch.tanh(x))


def loader(size=64):
    return DataLoader(TensorDataset(*ROWS), size)


@functools.cache
def trained(size=64):
    """The weights after a loop by hand, and the mean loss of each epoch."""
    model, means = ByHand(), []
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for _ in range(EPOCHS):
        losses = []
        for x, y in loader(size):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(np.mean(losses))
    assert means[1] < means[0]
    return model.state_dict(), means


def assert_trained(model, size=64):
    torch.testing.assert_close(model.state_dict(), trained(size)[0], rtol=1e-5, atol=1e-6)


# Engines that train


def lightning_module(model):
    lightning = pytest.importorskip("lightning")

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), RATE)

    return Task()


def lightning_trainer():
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    lightning = pytest.importorskip("lightning")
    return lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", logger=False, **quiet)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_lightning():
    task = lightning_module(drawn())
    lightning_trainer().fit(task, loader())
    assert_trained(task.model)


def test_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator, model = accelerate.Accelerator(cpu=True), drawn()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    prepared, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    for _ in range(EPOCHS):
        for x, y in batches:
            accelerator.backward(F.cross_entropy(prepared(x), y))
            optimizer.step()
            optimizer.zero_grad()
    assert accelerator.unwrap_model(prepared, keep_fp32_wrapper=False) is model
    assert_trained(model)
    accelerator.save_state(tmp_path)
    nn.init.zeros_(model.head.weight)
    accelerator.load_state(tmp_path)
    assert_trained(model)


def test_hugging_face_trainer(tmp_path):
    """It wants the loss from the model, which is drawn into it; and evaluates by the labels' name."""
    transformers = pytest.importorskip("transformers")
    model = drawn()
    labels = Input((), dtype="int64", name="labels")
    logits = model.outputs[0]
    model = Model([model.inputs[0], labels], {"loss": F.cross_entropy(logits, labels), "logits": logits})
    rows = [{"row": x, "labels": y} for x, y in zip(*ROWS, strict=True)]
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    size = len(rows)  # one batch, since it shuffles
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=size,
            per_device_eval_batch_size=50,
            lr_scheduler_type="constant",
            max_grad_norm=0,
            label_names=["labels"],
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=lambda given: {"accuracy": (given.predictions.argmax(-1) == given.label_ids).mean()},
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)),
    )
    found = trainer.train()
    assert found.training_loss == pytest.approx(np.mean(trained(size)[1]), rel=1e-4)
    assert_trained(model, size)
    right = model(*ROWS)["logits"].argmax(-1) == ROWS[1]
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(right.double().mean().item())


def test_skorch():
    skorch = pytest.importorskip("skorch")
    net = skorch.NeuralNetClassifier(
        drawn(), criterion=nn.CrossEntropyLoss, lr=RATE, max_epochs=EPOCHS, batch_size=64, train_split=None, verbose=0
    )
    net.fit(*(each.numpy() for each in ROWS))
    assert_trained(net.module_)
    np.testing.assert_allclose(net.history[:, "train_loss"], trained()[1], rtol=1e-5)
    np.testing.assert_array_equal(net.predict(ROWS[0].numpy()), net.module_.predict(ROWS[0]).argmax(-1))


def test_ignite():
    engine = pytest.importorskip("ignite.engine")
    metrics = pytest.importorskip("ignite.metrics")
    model = drawn()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    engine.create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss()).run(loader(), EPOCHS)
    assert_trained(model)
    evaluator = engine.create_supervised_evaluator(model, {"loss": metrics.Loss(nn.CrossEntropyLoss())})
    model.compile(loss=nn.CrossEntropyLoss())
    assert evaluator.run(loader(50)).metrics["loss"] == pytest.approx(model.evaluate(*ROWS, verbose=0), rel=1e-5)


# What is seen of a model


class TestCaptum:
    def test_integrated_gradients(self):
        captum = pytest.importorskip("captum.attr")
        found, expected = (
            captum.IntegratedGradients(each).attribute(ROWS[0][:4], target=2) for each in (drawn(), ByHand())
        )
        torch.testing.assert_close(found, expected)
        assert found.abs().sum() > 0

    @pytest.mark.filterwarnings("ignore:Input Tensor 0 did not", "ignore:Setting forward, backward hooks")
    def test_activations_that_are_modules(self):
        """What treats activations in a way of its own looks for `nn.ReLU`: as modules by hand, draw them so."""
        captum = pytest.importorskip("captum.attr")
        by_hand = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        inputs = Input((8,))
        drawn_by_parts = Model(inputs, by_hand[2](nn.ReLU()(by_hand[0](inputs))))
        found, expected = (captum.DeepLift(each).attribute(ROWS[0][:4], target=2) for each in (drawn_by_parts, by_hand))
        torch.testing.assert_close(found, expected)
        as_function = Model(inputs, by_hand[2](torch.relu(by_hand[0](inputs))))
        assert not torch.allclose(captum.DeepLift(as_function).attribute(ROWS[0][:4], target=2), expected)

    @pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
    def test_named_layers(self, data_format):
        """It takes axis 1 for the channels; of an image model with channels last, `to_torch()` has them there."""
        captum = pytest.importorskip("captum.attr")
        first = data_format == "channels_first"
        images = torch.rand(4, 2, 6, 6)
        inputs = Input((2, 6, 6) if first else (6, 6, 2))
        x = layers.ReLU()(layers.Conv2D(3, 3, data_format=data_format, name="edges")(inputs))
        x = layers.GlobalAveragePooling2D(data_format=data_format)(x)
        model = Model(inputs, layers.Dense(5, name="head")(x))
        given = images if first else images.permute(0, 2, 3, 1)
        edges, head = nn.Conv2d(2, 3, 3), nn.Linear(3, 5)
        by_hand = nn.Sequential(edges, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        by_hand.load_state_dict(dict(zip(by_hand.state_dict(), model.state_dict().values(), strict=True)))
        taken = model if first else model.to_torch()
        for method in (captum.LayerGradCam, captum.LayerActivation):
            options = {"target": 1} if method is captum.LayerGradCam else {}
            found = method(taken, taken.get_submodule("edges")).attribute(given, **options)
            expected = method(by_hand, edges).attribute(images, **options)
            torch.testing.assert_close(found, expected)


def test_torchinfo():
    torchinfo = pytest.importorskip("torchinfo")
    model = drawn()
    found, expected = (torchinfo.summary(each, input_size=(4, 8), verbose=0) for each in (model, ByHand()))
    assert found.total_params == expected.total_params == model.count_params()
    assert found.total_mult_adds == expected.total_mult_adds
    rows = [(each.class_name, each.var_name, each.output_size) for each in found.summary_list[1:]]
    assert rows == [("Dense", "hidden", [4, 6]), ("LayerNorm", "layer_norm", [4, 6]), ("Dense", "head", [4, 3])]


def test_torchview():
    torchview = pytest.importorskip("torchview")
    graph = torchview.draw_graph(drawn(), input_size=(4, 8), depth=1)
    names = [(a.name, b.name) for a, b in graph.edge_list]
    assert sorted(names) == [
        ("Dense", "LayerNorm"),
        ("Dense", "output-tensor"),
        ("LayerNorm", "add"),
        ("LayerNorm", "tanh"),
        ("add", "Dense"),
        ("auxiliary-tensor", "Dense"),
        ("tanh", "add"),
    ]


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_mlflow(tmp_path, monkeypatch):
    """Its autologging follows Lightning; `fit` hands it the logs."""
    mlflow = pytest.importorskip("mlflow")
    flavour = pytest.importorskip("mlflow.pytorch")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # A database takes seconds to be made.
    mlflow.set_tracking_uri(f"file://{tmp_path}/runs")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("rows", f"file://{tmp_path}/files"))
    flavour.autolog(log_models=False)
    with mlflow.start_run() as run:
        lightning_trainer().fit(lightning_module(drawn()), loader())
    flavour.autolog(disable=True)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [each.value for each in history] == pytest.approx(trained()[1], rel=1e-5)

    model = drawn()
    model.compile(torch.optim.SGD(model.parameters(), RATE), nn.CrossEntropyLoss())
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, epoch))
    with mlflow.start_run() as run:
        model.fit(*ROWS, batch_size=64, epochs=EPOCHS, shuffle=False, callbacks=[note], verbose=0)
    assert_trained(model)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [each.value for each in history] == pytest.approx(trained()[1], rel=1e-5)


# What changes weights or reads them


class TestPeft:
    def test_lora_of_named_weights(self):
        """`target_parameters` goes by names, and adapts weights, which lie before a layer's own activation."""
        peft = pytest.importorskip("peft")
        model, names = drawn(), ["hidden", "head"]
        weights = [f"{name}.weight" for name in names]
        found = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=[], target_parameters=weights))
        expected = peft.get_peft_model(ByHand(), peft.LoraConfig(r=2, target_modules=names))
        with torch.no_grad():
            for (name, a), (other, b) in zip(lora(found), lora(expected), strict=True):
                assert name == other
                a.copy_(b.uniform_(-1, 1))
        torch.testing.assert_close(found(ROWS[0]), expected(ROWS[0]))
        for each in (found, expected):
            F.cross_entropy(each(ROWS[0]), ROWS[1]).backward()
        for (_, a), (_, b) in zip(lora(found), lora(expected), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        assert found.merge_and_unload() is model
        torch.testing.assert_close(model.state_dict(), expected.merge_and_unload().state_dict())

    def test_fit_trains_the_adapters(self):
        peft = pytest.importorskip("peft")
        model = drawn()
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        config = peft.LoraConfig(r=2, target_modules=[], target_parameters=["hidden.weight"])
        adapted = peft.get_peft_model(model, config)
        model.compile("adam", nn.CrossEntropyLoss())
        losses = model.fit(*ROWS, epochs=3, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
        expected = model.predict(ROWS[0], verbose=0)
        adapted.merge_and_unload()
        np.testing.assert_allclose(model.predict(ROWS[0], verbose=0), expected, rtol=1e-4, atol=1e-5)
        assert [name for name in before if not torch.equal(model.state_dict()[name], before[name])] == ["hidden.weight"]


def lora(model):
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def test_torchao():
    """It quantizes `nn.Linear` unless told what else."""
    quantization = pytest.importorskip("torchao.quantization")
    model, by_hand = drawn().eval(), ByHand().eval()
    config = quantization.Int8WeightOnlyConfig()
    quantization.quantize_(by_hand, config)
    quantization.quantize_(model, config, filter_fn=lambda module, name: isinstance(module, layers.Dense))
    assert type(model.hidden.weight) is type(by_hand.hidden.weight) is not nn.Parameter
    torch.testing.assert_close(model(ROWS[0]), by_hand(ROWS[0]), rtol=0, atol=0)
    np.testing.assert_allclose(model.predict(ROWS[0], verbose=0), by_hand(ROWS[0]).detach(), rtol=1e-6)


class TestTorch:
    def test_averaged_model(self):
        """The average over the epochs of a fit; `update_bn` goes by torch's classes, as in `to_torch()`."""
        inputs = Input((8,))
        x = layers.BatchNormalization(name="norm")(layers.Dense(4, name="hidden")(inputs))
        model = Model(inputs, layers.Dense(3)(x))
        averaged, seen = torch.optim.swa_utils.AveragedModel(model), []

        def average(epoch, logs):
            averaged.update_parameters(model)
            seen.append({name: weight.clone() for name, weight in model.named_parameters()})

        model.compile("sgd", nn.CrossEntropyLoss())
        model.fit(*ROWS, epochs=3, callbacks=[callbacks.LambdaCallback(on_epoch_end=average)], verbose=0)
        assert type(averaged.module) is type(model)
        for name, weight in averaged.module.named_parameters():
            torch.testing.assert_close(weight, sum(each[name] for each in seen) / 3)
        torch.optim.swa_utils.update_bn([ROWS[0]], averaged.module.to_torch())
        mean = averaged.module.hidden(ROWS[0]).mean(0)
        torch.testing.assert_close(averaged.module.norm.running_mean, mean, rtol=1e-4, atol=1e-5)

    def test_an_ensemble_and_gradients_by_sample(self):
        func = torch.func
        models = [drawn() for _ in range(3)]
        for number, model in enumerate(models):
            nn.init.constant_(model.head.bias, number)
        weights, buffers = func.stack_module_state(models)
        base = copy.deepcopy(models[0]).to("meta")
        outputs = func.vmap(lambda w, b: func.functional_call(base, (w, b), (ROWS[0],)))(weights, buffers)
        torch.testing.assert_close(outputs, torch.stack([model(ROWS[0]) for model in models]))

        def loss(weights, x, y):
            return F.cross_entropy(func.functional_call(models[0], weights, (x[None],)), y[None])

        x, y = ROWS[0][:5], ROWS[1][:5]
        gradients = func.vmap(func.grad(loss), (None, 0, 0))(dict(models[0].named_parameters()), x, y)
        by_hand = ByHand()
        nn.init.zeros_(by_hand.head.bias)
        for row in range(5):
            expected = torch.autograd.grad(
                F.cross_entropy(by_hand(x[row : row + 1]), y[row : row + 1]), list(by_hand.parameters())
            )
            for (name, _), each in zip(by_hand.named_parameters(), expected, strict=True):
                torch.testing.assert_close(gradients[name][row], each)

    @pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
    def test_distributed_checkpoint(self, tmp_path):
        """What is saved after one epoch is loaded elsewhere, and the second epoch ends as that of one run."""
        checkpoint = pytest.importorskip("torch.distributed.checkpoint")
        state_dict = pytest.importorskip("torch.distributed.checkpoint.state_dict")

        def epoch(model, optimizer):
            for x, y in loader():
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

        def start(model):
            return model, torch.optim.SGD(model.parameters(), RATE, momentum=0.5)

        first, straight, later = start(drawn()), start(ByHand()), start(drawn())
        nn.init.zeros_(later[0].head.weight)
        epoch(*first)
        model, optimizer = state_dict.get_state_dict(*first)
        checkpoint.save({"model": model, "optimizer": optimizer}, checkpoint_id=tmp_path)
        model, optimizer = state_dict.get_state_dict(*later)
        checkpoint.load({"model": model, "optimizer": optimizer}, checkpoint_id=tmp_path)
        state_dict.set_state_dict(*later, model_state_dict=model, optim_state_dict=optimizer)
        epoch(*later)
        epoch(*straight)
        epoch(*straight)
        torch.testing.assert_close(later[0].state_dict(), straight[0].state_dict(), rtol=1e-5, atol=1e-6)
