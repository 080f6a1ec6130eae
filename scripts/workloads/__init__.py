"""What `scripts/benchmark.py` measures, and the contestants that do it.

In the process that measures, `rows` says what is measured and against whom, `contestants` who there is, and `turns`
starts a worker process for each of them and gives it its turns.

In the workers, `worker` takes commands, `jobs` and `data` say what is to be done and with what; `drawn` draws the
models (one drawing for torchfunc and Keras) that `functional` trains; `modules` writes them by hand for `by_hand`;
`others` are Lightning, skorch and pytorch-symbolic; `calls` is the forward pass of all of them. No worker imports a
contestant other than its own.
"""
