"""Callbacks: code that runs at set points of `fit`, `evaluate` and `predict`.

They have Keras' names, arguments and behaviour. `RemoteMonitor` is left out on purpose: what sends logs somewhere is a
`LambdaCallback(on_epoch_end=...)` with the client of your choice.
"""

from torchfunc.callbacks.backup_and_restore import BackupAndRestore
from torchfunc.callbacks.base import Callback
from torchfunc.callbacks.basic import LambdaCallback, ProgbarLogger
from torchfunc.callbacks.callback_list import CallbackList
from torchfunc.callbacks.csv_logger import CSVLogger
from torchfunc.callbacks.early_stopping import EarlyStopping
from torchfunc.callbacks.history import History
from torchfunc.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau, TorchLRScheduler
from torchfunc.callbacks.live_plot import LivePlot
from torchfunc.callbacks.model_checkpoint import ModelCheckpoint
from torchfunc.callbacks.monitor import MonitorCallback
from torchfunc.callbacks.swap_ema_weights import SwapEMAWeights
from torchfunc.callbacks.tensorboard import TensorBoard
from torchfunc.callbacks.terminate_on_nan import TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "LivePlot",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
    "TorchLRScheduler",
]
