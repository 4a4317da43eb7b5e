"""The Textual player: app, controller, presenter, screens and widgets."""
