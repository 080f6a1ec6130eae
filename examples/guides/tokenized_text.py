"""Text in: a tokenizer makes numbers of it, batch by batch, in the DataLoader that `fit` takes.

The sentences are what scikit-learn writes about three of its data sets; the question is about which. The tokenizer is
trained here on them. One of Hugging Face's, `AutoTokenizer.from_pretrained(...)`, takes its place in one line.
"""

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import train_test_split
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.utils.data import DataLoader

from torchfunc import Sequential, layers, optimizers, utils

utils.set_random_seed(0)
examples = [
    (line, label)
    for label, load in enumerate((load_breast_cancer, load_diabetes, load_wine))
    for line in load().DESCR.splitlines()
    if len(line.split()) > 4
]
train, test = train_test_split(examples, test_size=0.2, random_state=0)

tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
special = ["[PAD]", "[UNK]"]  # number 0 is padding, which mask_zero below leaves out
tokenizer.train_from_iterator((line for line, _ in train), trainers.WordLevelTrainer(special_tokens=special))
tokenizer.enable_padding()
print("Tokens:", *tokenizer.encode(train[0][0]).tokens[:6])


def collate(batch: list[tuple[str, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lines and labels as (batch, longest line) numbers and (batch,) numbers."""
    lines, labels = zip(*batch, strict=True)
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(lines)]), torch.tensor(labels)


train_batches = DataLoader(train, batch_size=16, shuffle=True, collate_fn=collate)
test_batches = DataLoader(test, batch_size=16, collate_fn=collate)

model = Sequential()
model.add(layers.Embedding(tokenizer.get_vocab_size(), 32, mask_zero=True))
model.add(layers.Bidirectional(layers.LSTM(16)))
model.add(layers.Dense(3, activation="softmax"))
model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(train_batches, validation_data=test_batches, epochs=8, verbose=0)
print("Most lines it has not seen are told right:", history.history["val_accuracy"][-1] > 0.6)
