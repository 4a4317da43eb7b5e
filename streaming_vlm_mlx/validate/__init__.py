"""How good a model's commentary is: against what happened, against what was said, and against what it says blind."""
