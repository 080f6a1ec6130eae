"""What a layer knows of its calls. Each call makes a node: from its inputs to its outputs."""

from torchfunc import Input, layers

a = Input(shape=(140, 256), name="a")
dense = layers.Dense(32, name="dense")
affine_a = dense(a)
print("One call, one output:", dense.output is affine_a, dense.output.shape)

b = Input(shape=(140, 256), name="b")
affine_b = dense(b)
try:
    print(dense.output)
except AttributeError as error:
    print(error)
print("By number:", dense.get_output_at(0) is affine_a, dense.get_output_at(1) is affine_b)
print("All calls had inputs of one shape, so that is clear:", dense.input_shape)

images_a = Input(shape=(32, 32, 3))
images_b = Input(shape=(64, 64, 3))
conv = layers.Conv2D(16, (3, 3), padding="same", name="conv")
conved_a = conv(images_a)
print("Before the second call:", conv.input_shape)
conved_b = conv(images_b)
try:
    print(conv.input_shape)
except AttributeError as error:
    print("After it:", type(error).__name__)
print("By number:", conv.get_input_shape_at(0), conv.get_input_shape_at(1), conv.get_output_shape_at(1))
