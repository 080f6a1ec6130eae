"""A sample of scripts/sweep_torch.py: PyTorch's own tests of operators and modules, drawn."""

from pathlib import Path

import pytest

# What is refused of the operators below, and must say why.
REFUSED = {
    *("item", "cauchy", "nonzero", "masked_select", "unique", "masked.sum", "zero_", "nn.functional.one_hot"),
}
# Ones that were wrong once, beside every 40th.
ALWAYS = {"eq", "ne", "__rdiv__", "nn.functional.ctc_loss", "nn.functional.gaussian_nll_loss", "squeeze"}


@pytest.fixture(scope="module")
def sweep_torch():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        import sweep_torch

        return sweep_torch


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["operators", "modules"])
def test_a_sample(sweep_torch, what):
    infos, cases = sweep_torch.DATABASES[what]
    chosen = [info for number, info in enumerate(infos) if number % 40 == 0 or info.name in REFUSED | ALWAYS]
    outcomes = dict(sweep_torch.sweep(chosen, cases))
    assert {name: outcome.why for name, outcome in outcomes.items() if outcome.kind == "wrong"} == {}
    # (Each torch has another sample; all of torch.masked is refused.)
    others = {name for name in outcomes if name.startswith("masked.")} - REFUSED
    refused = {name for name, outcome in outcomes.items() if outcome.kind == "refused"} - others
    assert refused == (REFUSED if what == "operators" else set())
