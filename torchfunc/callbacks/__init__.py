"""Callbacks: code that runs at set points of `fit`, `evaluate` and `predict`."""

from torchfunc.callbacks.backup_and_restore import BackupAndRestore
from torchfunc.callbacks.base import Callback
from torchfunc.callbacks.basic import History, LambdaCallback, ProgbarLogger
from torchfunc.callbacks.callback_list import CallbackList
from torchfunc.callbacks.early_stopping import EarlyStopping

__all__ = [
    "BackupAndRestore",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "ProgbarLogger",
]
