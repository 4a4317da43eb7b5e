"""The stream beside other programs that run the same checkpoint: each in a process of its own, second by second."""
