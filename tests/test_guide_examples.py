"""Each script of `examples/guides` runs, and prints what it is there to show. All in this process."""

from __future__ import annotations

import pathlib
import runpy

import pytest

GUIDES = pathlib.Path(__file__).parent.parent / "examples" / "guides"

PRINTED = {
    "autoencoder": """
        Parameters: 18,672 of 28,241
        Training the whole has trained the encoder: True
        Parameters: 9,569 of 28,241, layers: 3
        Both halves make the whole: True
    """,
    "custom_layer": """
        Weights: {'custom_dense.w': (4, 10), 'custom_dense.b': (10,)}
        From its config and its weights: True
        From a file: True
    """,
    "ensemble": """
        Parameters: 97 each, 291 in all
        Errors differ: True
        The mean's error is less than the mean error: True
    """,
    "features": """
        22 layers, 20,024,384 parameters
        No weights of its own: True
        input_layer: (1, 64, 64, 3)
        block1_conv1: (1, 64, 64, 64)
        block1_conv2: (1, 64, 64, 64)
        block1_pool: (1, 32, 32, 64)
        The last is what the network gives: True
        Which maps go together: (512, 512)
    """,
    "first_model": """
        Parameters: 3466 and 3466
        Trained alike, they predict the same: True
        A film of 20 pictures gives (1, 20, 10)
        It has no weights of its own: True
    """,
    "headline": """
        Parameters: 5,200,610
        Logs: aux_output_loss loss main_output_loss
        Lists and dicts train alike: True
        Predictions: (128, 1) (128, 1)
    """,
    "image_folder": """
        Classes: digit-0 digit-1 digit-2 ...
        Four of five images it has not seen are told right: True
        Probabilities: (200, 10)
    """,
    "inception": """
        8 layers, 140,160 parameters, maps of (None, 256, 256, 192)
        The last tower's share is the last 64 maps: True
    """,
    "instrumentation": """
        Trained: True
        Seen: {'edges': (4, 6, 6, 8), 'shapes': (4, 4, 4, 16), 'digit': (4, 10)}
        One answer from both: True
        The same by looking afterwards: True
        Or by name: edges shapes
    """,
    "mixed_styles": """
        Called on numbers: (1, 1)
        Drawn: (16, 8, 1) from (16, 8, 32)
        Called on numbers: (16, 8, 1)
        The weights of the loop are the model's: True
    """,
    "multi_task": """
        Logs: loss x_out_accuracy x_out_loss y_out_accuracy y_out_loss
        Both are learnt: True True
        Called twice, counted once: True
        Shares of a digit: 1.0
    """,
    "nodes": """
        One call, one output: True (None, 140, 32)
        Layer dense has multiple inbound nodes, hence the notion of "layer output" is ill-defined. \
Use `get_output_at(node_index)` instead.
        By number: True True
        All calls had inputs of one shape, so that is clear: (None, 140, 256)
        Before the second call: (None, 32, 32, 3)
        After it: AttributeError
        By number: (None, 32, 32, 3) (None, 64, 64, 3) (None, 64, 64, 16)
    """,
    "question_and_text": """
        Far more right than a guess: True
        john hall mary office sandra office - where is john ?
        An answer has a share for each place, in all: 1.0
    """,
    "questions_about_images": """
        Five of six answers about unseen pictures are right: True
        which digit is it? eight
        is it even? yes
        is it more than four? yes
        About films of 6 and 9 pictures: (1, 12) (1, 12)
        Both models see with the same weights: True
    """,
    "residual": """
        84 parameters, (None, 256, 256, 3)
        While the kernel is zero, the picture goes through as it is: True
        A gradient reaches the convolution: True
    """,
    "shared_vision": """
        Layers: digit_a digit_b vision concatenate dense dense_1
        Parameters of the vision, in it and in all: 9,568, 26,081
        More than 7 of 10 pairs are told right: True
        What was trained is the vision: True
    """,
    "three_heads": """
        Logs: age_loss gender_loss income_loss loss
        The loss is the weighted sum of the three: True
        It learns: True
        Predictions: (256, 1) (256, 10) (256, 1)
    """,
    "tickets": """
        Parameters: 1,392,097
        In order or by name, the same loss: True
        Outputs: {'priority': (64, 1), 'department': (64, 4)}
        Shorter titles will do: (64, 1)
    """,
    "tokenized_text": """
        Tokens: hue : 0 . 48 1
        Most lines it has not seen are told right: True
    """,
    "two_images": """
        1,088,720 of 1,092,761 parameters are the model within
        It learns: True
    """,
    "two_texts": """
        Weights: reader.weight_ih_l0 reader.weight_hh_l0 reader.bias_ih_l0 answer.weight answer.bias
        The LSTM is counted once: 82,176 of 82,305 parameters
        It learns: True
        The order of inputs is the model's: True
    """,
}


@pytest.mark.parametrize("name", sorted(path.stem for path in GUIDES.glob("*.py")))
def test_guide_prints_what_it_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(GUIDES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [line.strip() for line in PRINTED[name].strip().splitlines()]
