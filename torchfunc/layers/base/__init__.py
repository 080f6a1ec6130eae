"""What every layer is built on: Layer, its weights, shapes, specs and tracking."""
