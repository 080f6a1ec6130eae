"""A drawn model in a layer that is a program, and that layer in a drawn model."""

from torchfunc import Input, Model, layers, ops, utils

UNITS, STEPS, SIZE, BATCH = 32, 10, 5, 16


class CustomRNN(layers.Layer):
    """A recurrent layer written as a loop; what it gives in the end goes through `head`."""

    def __init__(self, head):
        super().__init__()
        self.from_input = layers.Dense(UNITS, activation="tanh")
        self.from_state = layers.Dense(UNITS, activation="tanh")
        self.head = head

    def call(self, inputs):
        outputs = []
        state = ops.zeros((inputs.shape[0], UNITS))
        for step in range(inputs.shape[1]):
            state = self.from_input(inputs[:, step]) + self.from_state(state)
            outputs.append(state)
        return self.head(ops.stack(outputs, axis=1))


utils.set_random_seed(0)
# A drawn model, used by the program.
states = Input((None, UNITS))
x = layers.GlobalAveragePooling1D()(states)
drawn = Model(states, layers.Dense(1)(x))
program = CustomRNN(drawn)
print("Called on numbers:", tuple(program(ops.zeros((1, STEPS, SIZE))).shape))

# The program, used by a drawn model. It makes its state for a known number of rows, so the input says how many.
inputs = Input(batch_shape=(BATCH, STEPS, SIZE))
x = layers.Conv1D(32, 3)(inputs)
outputs = CustomRNN(layers.Dense(1))(x)
model = Model(inputs, outputs)
print("Drawn:", model.output_shape, "from", model.layers[2].input_shape)
print("Called on numbers:", tuple(model(ops.zeros((BATCH, STEPS, SIZE))).shape))
weights = [name for name in model.state_dict() if name.startswith("custom_rnn.")]
print("The weights of the loop are the model's:", len(weights) == 6)
