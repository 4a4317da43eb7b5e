"""Small matrices beside a model's weights, which learn in their place."""
